//! The test vectors in `spec/vectors` for code identities and for what binds evidence to a connection.
//!
//! Each file is read and each case is made again from the inputs that stand in it. With `SESEMI_WRITE_VECTORS=1` in the
//! environment the files are first written anew from the recipes here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::{Value, json};
use sesemi_attest::channel::binding::{Connection, Role};
use sesemi_attest::code_identity::{SgxMeasurement, SnpMeasurement, TdxMeasurement};
use sesemi_attest::{AppraisalPolicy, CodeIdentity, TrustDomain};
use sesemi_protocol::{Digest, PublicIdentity, SecretKey, SigningIdentity, cbor};

fn vectors(file: &str, make: impl FnOnce() -> Value) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../../spec/vectors")
        .join(file);
    if std::env::var_os("SESEMI_WRITE_VECTORS").is_some_and(|value| value == "1") {
        let text = serde_json::to_string_pretty(&make()).unwrap();
        std::fs::write(&path, text + "\n").unwrap();
    }
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// `case` with more fields.
fn with(case: &Value, more: Value) -> Value {
    let mut out = case.as_object().unwrap().clone();
    let Value::Object(more) = more else {
        panic!("not an object");
    };
    out.extend(more);
    Value::Object(out)
}

fn bytes<const N: usize>(case: &Value, field: &str) -> [u8; N] {
    let text = case[field].as_str().unwrap();
    hex::decode(text).unwrap().try_into().unwrap()
}

fn u16_of(case: &Value, field: &str) -> u16 {
    case[field].as_u64().unwrap().try_into().unwrap()
}

fn assert_remade(cases: &Value, recipes: &[Value], fill: fn(&Value) -> Value) {
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), recipes.len(), "cases are missing");
    for (case, recipe) in cases.iter().zip(recipes) {
        assert_eq!(
            case["name"], recipe["name"],
            "another case is expected here"
        );
        assert_eq!(fill(case), *case);
    }
}

fn identities() -> &'static Value {
    static FILE: OnceLock<Value> = OnceLock::new();
    FILE.get_or_init(|| {
        vectors("code-identity.json", || {
            let cases: Vec<Value> = identity_recipes().iter().map(fill_identity).collect();
            json!({ "about": "Code identities of SGX enclaves, TDX domains and SEV-SNP guests: spec/code-identity.md.", "identities": cases })
        })
    })
}

fn identity_recipes() -> Vec<Value> {
    [sgx_recipes(), tdx_recipes(), snp_recipes()].concat()
}

fn sgx_recipes() -> Vec<Value> {
    let base = json!({
        "name": "product 1, security version 1, no configuration",
        "tee": "sgx",
        "trust_domain": "01".repeat(32),
        "mr_enclave": "01".repeat(32),
        "mr_signer": "02".repeat(32),
        "isv_prod_id": 1,
        "isv_svn": 1,
        "config_id": "00".repeat(64),
    });
    vec![
        base.clone(),
        with(
            &base,
            json!({ "name": "the same in another trust domain", "trust_domain": "03".repeat(32) }),
        ),
        with(
            &base,
            json!({
                "name": "the highest numbers and a configuration",
                "isv_prod_id": 65_535, "isv_svn": 256, "config_id": "a5".repeat(64),
            }),
        ),
    ]
}

fn tdx_recipes() -> Vec<Value> {
    let zero = "00".repeat(48);
    let base = json!({
        "name": "TDX: a domain that its host configured nothing of",
        "tee": "tdx",
        "trust_domain": "01".repeat(32),
        "mr_td": "11".repeat(48),
        "rt_mr": ["20".repeat(48), "21".repeat(48), "22".repeat(48), zero],
        "mr_owner": zero,
        "mr_config_id": zero,
        "mr_owner_config": zero,
        "td_attributes": "0000001000000000",
        "xfam": "e702060000000000",
    });
    vec![
        base.clone(),
        with(
            &base,
            json!({
                "name": "TDX: every field has a value of its own",
                "rt_mr": ["20".repeat(48), "21".repeat(48), "22".repeat(48), "23".repeat(48)],
                "mr_owner": "30".repeat(48),
                "mr_config_id": "40".repeat(48),
                "mr_owner_config": "41".repeat(48),
                "td_attributes": "0001020304050607",
                "xfam": "08090a0b0c0d0e0f",
            }),
        ),
    ]
}

fn snp_recipes() -> Vec<Value> {
    let base = json!({
        "name": "SEV-SNP: a guest without an identity block",
        "tee": "snp",
        "trust_domain": "04".repeat(32),
        "measurement": "11".repeat(48),
        "id_key_digest": "00".repeat(48),
        "author_key_digest": "00".repeat(48),
        "guest_svn": 0,
        "family_id": "00".repeat(16),
        "image_id": "00".repeat(16),
        "host_data": "00".repeat(32),
        "policy": 0x30000,
    });
    vec![
        base.clone(),
        with(
            &base,
            json!({
                "name": "SEV-SNP: every field has a value of its own",
                "id_key_digest": "20".repeat(48),
                "author_key_digest": "21".repeat(48),
                "guest_svn": u32::MAX,
                "family_id": "30".repeat(16),
                "image_id": "31".repeat(16),
                "host_data": "32".repeat(32),
                "policy": 0x0001_0203_0007_0809_u64,
            }),
        ),
    ]
}

fn identity_of(case: &Value) -> CodeIdentity {
    let domain = TrustDomain(Digest(bytes(case, "trust_domain")));
    match case["tee"].as_str().unwrap() {
        "sgx" => CodeIdentity::sgx(
            domain,
            &SgxMeasurement {
                mr_enclave: bytes(case, "mr_enclave"),
                mr_signer: bytes(case, "mr_signer"),
                isv_prod_id: u16_of(case, "isv_prod_id"),
                isv_svn: u16_of(case, "isv_svn"),
                config_id: bytes(case, "config_id"),
            },
        ),
        "tdx" => CodeIdentity::tdx(
            domain,
            &TdxMeasurement {
                mr_td: bytes(case, "mr_td"),
                rt_mr: [0, 1, 2, 3]
                    .map(|at| bytes(&json!({ "rt_mr": case["rt_mr"][at] }), "rt_mr")),
                mr_owner: bytes(case, "mr_owner"),
                mr_config_id: bytes(case, "mr_config_id"),
                mr_owner_config: bytes(case, "mr_owner_config"),
                td_attributes: bytes(case, "td_attributes"),
                xfam: bytes(case, "xfam"),
            },
        ),
        "snp" => CodeIdentity::snp(
            domain,
            &SnpMeasurement {
                measurement: bytes(case, "measurement"),
                id_key_digest: bytes(case, "id_key_digest"),
                author_key_digest: bytes(case, "author_key_digest"),
                guest_svn: case["guest_svn"].as_u64().unwrap().try_into().unwrap(),
                family_id: bytes(case, "family_id"),
                image_id: bytes(case, "image_id"),
                host_data: bytes(case, "host_data"),
                policy: case["policy"].as_u64().unwrap(),
            },
        ),
        other => panic!("no such TEE: {other}"),
    }
}

fn fill_identity(case: &Value) -> Value {
    let identity = identity_of(case);
    with(
        case,
        json!({
            "cbor": hex::encode(&*cbor::encode(&identity).unwrap()),
            "digest": identity.digest().unwrap().to_string(),
        }),
    )
}

#[test]
fn every_code_identity_has_the_published_encoding_and_digest() {
    assert_remade(
        &identities()["identities"],
        &identity_recipes(),
        fill_identity,
    );
}

#[test]
fn a_code_identity_reads_back_from_its_encoding_and_from_no_other() {
    for case in identities()["identities"].as_array().unwrap() {
        let encoded = hex::decode(case["cbor"].as_str().unwrap()).unwrap();
        let identity: CodeIdentity = cbor::decode(&encoded, encoded.len()).unwrap();
        assert_eq!(identity.digest().unwrap().to_string(), case["digest"]);
        let longer = [&encoded[..], &[0]].concat();
        assert!(cbor::decode::<CodeIdentity>(&longer, longer.len()).is_err());
    }
}

fn bindings() -> &'static Value {
    static FILE: OnceLock<Value> = OnceLock::new();
    FILE.get_or_init(|| {
        vectors("channel.json", || {
            let cases: Vec<Value> = binding_recipes().iter().map(fill_binding).collect();
            json!({
                "about": "What evidence and the service's signature are bound to on a channel: spec/channel.md. \
                          'service_seed' is the seed of the service's identity.",
                "bindings": cases,
            })
        })
    })
}

fn binding_recipes() -> Vec<Value> {
    let base = json!({
        "name": "an enclave as client",
        "exporter": "e1".repeat(32),
        "client_key": "c2".repeat(32),
        "server_key": "53".repeat(32),
        "service_seed": "40".repeat(32),
        "policy": AppraisalPolicy::per_release().digest().unwrap().to_string(),
        "client_nonce": "a4".repeat(32),
        "server_nonce": "b5".repeat(32),
    });
    vec![
        base.clone(),
        with(
            &base,
            json!({ "name": "a principal as client", "client_key": null, "server_nonce": null }),
        ),
    ]
}

fn service(case: &Value) -> SigningIdentity {
    SigningIdentity::from_seed(SecretKey::from_bytes(bytes(case, "service_seed"))).unwrap()
}

fn connection(case: &Value) -> Connection {
    Connection {
        exporter: bytes(case, "exporter"),
        client_key: (!case["client_key"].is_null()).then(|| Digest(bytes(case, "client_key"))),
        server_key: Digest(bytes(case, "server_key")),
        service: service(case).public().service_id(),
        policy: Digest(bytes(case, "policy")),
    }
}

/// The server's report data and the service's signature are over the client's nonce, the client's report data over the
/// server's; a principal has no evidence and so no report data.
fn fill_binding(case: &Value) -> Value {
    let connection = connection(case);
    let client_nonce = bytes(case, "client_nonce");
    let server = connection.report_data(Role::Server, &client_nonce);
    let client = (!case["server_nonce"].is_null()).then(|| {
        let nonce = bytes(case, "server_nonce");
        hex::encode(connection.report_data(Role::Client, &nonce))
    });
    let statement = connection.service_statement(&client_nonce);
    with(
        case,
        json!({
            "service_id": connection.service.to_string(),
            "service_key": hex::encode(service(case).public().key()),
            "server_report_data": hex::encode(server),
            "client_report_data": client,
            "service_statement": hex::encode(&statement),
            "service_signature": hex::encode(service(case).sign(&statement)),
        }),
    )
}

#[test]
fn every_connection_binds_evidence_as_published() {
    assert_remade(&bindings()["bindings"], &binding_recipes(), fill_binding);
}

#[test]
fn the_service_signature_verifies_for_its_connection_and_no_other() {
    for case in bindings()["bindings"].as_array().unwrap() {
        let service = PublicIdentity::from_key(bytes(case, "service_key"));
        let signature: [u8; 64] = bytes(case, "service_signature");
        let statement = |nonce| connection(case).service_statement(nonce);
        let nonce = bytes(case, "client_nonce");
        service.verify(&statement(&nonce), &signature).unwrap();
        assert!(service.verify(&statement(&[0; 32]), &signature).is_err());
    }
}
