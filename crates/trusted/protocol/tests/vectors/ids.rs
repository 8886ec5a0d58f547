//! Padding and ids: `padding.json` and `ids.json`.

use std::sync::OnceLock;

use serde_json::{Value, json};
use sesemi_protocol::cbor;
use sesemi_protocol::padding::padded_length;
use sesemi_protocol::{
    AliasName, CodeIdentityDigest, Digest, GroupName, ModelId, ModelName, ModelRef, ModelTarget,
    PrincipalId, RequestId, ServiceId,
};

use crate::support::{assert_remade, bytes, counting, list, number, text, vectors, with};
use crate::values::{grantor_seed, identity, model_text, owner_seed, service_seed, user_seed};

fn padding() -> &'static Value {
    static FILE: OnceLock<Value> = OnceLock::new();
    FILE.get_or_init(|| {
        vectors("padding.json", || {
            let cases: Vec<Value> = padding_recipes().iter().map(fill_padding).collect();
            json!({
                "about": "Padded length of a plaintext, in bytes: spec/envelope.md, section Padding.",
                "cases": cases,
            })
        })
    })
}

fn padding_recipes() -> Vec<Value> {
    let near_buckets = [
        0usize, 1, 511, 512, 513, 543, 544, 545, 1023, 1024, 1025, 1055, 1056, 1057,
    ];
    let larger = [
        65_535, 65_536, 65_537, 67_584, 1_000_000, 1_048_576, 1_048_577, 20_000_000, 66_060_288,
        66_060_289,
    ];
    let lengths = near_buckets.into_iter().chain(larger);
    lengths
        .map(|length| json!({ "name": format!("{length} bytes"), "length": length }))
        .collect()
}

fn fill_padding(case: &Value) -> Value {
    let padded = padded_length(number(case, "length")).unwrap();
    with(case, json!({ "padded": padded }))
}

#[test]
fn every_padded_length_is_remade() {
    assert_remade(&padding()["cases"], &padding_recipes(), fill_padding);
}

fn ids() -> &'static Value {
    static FILE: OnceLock<Value> = OnceLock::new();
    FILE.get_or_init(|| {
        vectors("ids.json", || {
            let identities: Vec<Value> = identity_recipes().iter().map(fill_identity).collect();
            let ids: Vec<Value> = id_recipes().iter().map(fill_id).collect();
            json!({
                "about": "Identities, and the text and CBOR forms of ids: spec/ids.md.",
                "identities": identities,
                "ids": ids,
                "refused": refused_texts(),
            })
        })
    })
}

fn identity_recipes() -> Vec<Value> {
    let rfc_8032 = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    vec![
        json!({ "name": "the first test of RFC 8032, section 7.1", "seed": rfc_8032 }),
        json!({ "name": "the owner in these vectors", "seed": owner_seed() }),
        json!({ "name": "the user in these vectors", "seed": user_seed() }),
        json!({ "name": "the grantor in these vectors", "seed": grantor_seed() }),
        json!({ "name": "the KeyService in these vectors", "seed": service_seed() }),
    ]
}

fn fill_identity(case: &Value) -> Value {
    let identity = identity(text(case, "seed"));
    with(
        case,
        json!({
            "public_key": hex::encode(identity.public().key()),
            "id": identity.public().principal_id().to_string(),
        }),
    )
}

fn id_recipes() -> Vec<Value> {
    let owner = identity(&owner_seed()).public().principal_id().to_string();
    let case =
        |name: &str, kind: &str, text: &str| json!({ "name": name, "kind": kind, "text": text });
    vec![
        case("a principal", "principal", &owner),
        case("a service", "service", &counting(0x11, 32)),
        case("a code identity", "code_identity", &counting(0x22, 32)),
        case("a digest", "digest", &counting(0x33, 32)),
        case("a request", "request", &counting(0x44, 16)),
        case("the shortest model name", "model_name", "m"),
        case("a model name that begins with a digit", "model_name", "7b"),
        case(
            "a model name of all kinds of characters",
            "model_name",
            "res.net-50_v2",
        ),
        case("the longest model name", "model_name", &"a".repeat(64)),
        case("the shortest alias", "alias", "s"),
        case("an alias like a version", "alias", "v1"),
        case("the longest alias", "alias", &"a".repeat(64)),
        case("a group", "group", "study-7"),
        case("a group that begins with a digit", "group", "2026"),
        case("a model id", "model_id", &format!("{owner}/m")),
        case("a model version", "model", &model_text(3)),
        case(
            "the highest model version",
            "model",
            &format!("{owner}/m@4294967295"),
        ),
        case("a target by its version", "target", &model_text(3)),
        case(
            "a target by an alias",
            "target",
            &format!("{owner}/m@stable"),
        ),
        case(
            "a target by an alias of one letter",
            "target",
            &format!("{owner}/m@e"),
        ),
    ]
}

/// Text to value to text and CBOR.
fn read_id(kind: &str, text: &str) -> Option<(String, Vec<u8>)> {
    fn both<T>(text: &str) -> Option<(String, Vec<u8>)>
    where
        T: std::str::FromStr + ToString + minicbor::Encode<()>,
    {
        let id: T = text.parse().ok()?;
        Some((id.to_string(), cbor::encode(&id).unwrap().to_vec()))
    }
    match kind {
        "principal" => both::<PrincipalId>(text),
        "service" => both::<ServiceId>(text),
        "code_identity" => both::<CodeIdentityDigest>(text),
        "digest" => both::<Digest>(text),
        "request" => both::<RequestId>(text),
        "model_name" => both::<ModelName>(text),
        "alias" => both::<AliasName>(text),
        "group" => both::<GroupName>(text),
        "model_id" => both::<ModelId>(text),
        "model" => both::<ModelRef>(text),
        "target" => both::<ModelTarget>(text),
        other => panic!("no kind of id '{other}'"),
    }
}

fn fill_id(case: &Value) -> Value {
    let (written, cbor) = read_id(text(case, "kind"), text(case, "text")).unwrap();
    with(
        case,
        json!({ "written": written, "cbor": hex::encode(cbor) }),
    )
}

fn refused_texts() -> Vec<Value> {
    let owner = "ab".repeat(32);
    let mut refused = vec![
        json!({ "kind": "principal", "text": "" }),
        json!({ "kind": "principal", "text": counting(0xa0, 32).to_uppercase() }),
        json!({ "kind": "principal", "text": "ab".repeat(31) }),
        json!({ "kind": "principal", "text": "ab".repeat(33) }),
        json!({ "kind": "principal", "text": format!("0x{}", "ab".repeat(31)) }),
        json!({ "kind": "principal", "text": format!("{} ", "ab".repeat(32)) }),
        json!({ "kind": "request", "text": "ab".repeat(32) }),
    ];
    let names = [
        "",
        ".",
        "..",
        ".a",
        "-a",
        "_a",
        "a/b",
        "a\\b",
        "A",
        "a b",
        "a@1",
        "\u{e4}",
        "a\u{0}",
        &"a".repeat(65),
    ];
    for kind in ["model_name", "alias", "group"] {
        refused.extend(names.map(|name| json!({ "kind": kind, "text": name })));
    }
    refused.extend(["1", "7b", "4294967295"].map(|name| json!({ "kind": "alias", "text": name })));
    let versions = ["0", "01", "+1", "", "-1", "4294967296", "1 ", "1@1"];
    for kind in ["model", "target"] {
        refused.extend(
            versions.map(|version| json!({ "kind": kind, "text": format!("{owner}/m@{version}") })),
        );
        let models = ["m@1".to_owned(), format!("{owner}/m"), owner.clone()];
        refused.extend(models.map(|model| json!({ "kind": kind, "text": model })));
    }
    refused.push(json!({ "kind": "model", "text": format!("{owner}/m@stable") }));
    refused.push(json!({ "kind": "target", "text": format!("{owner}/m@Stable") }));
    let ids = [
        "m".to_owned(),
        format!("{owner}/m@1"),
        format!("{owner}/a/b"),
    ];
    refused.extend(ids.map(|id| json!({ "kind": "model_id", "text": id })));
    refused
}

#[test]
fn every_identity_and_id_is_remade() {
    assert_remade(&ids()["identities"], &identity_recipes(), fill_identity);
    assert_remade(&ids()["ids"], &id_recipes(), fill_id);
}

#[test]
fn what_an_id_is_encoded_as_reads_back_as_the_id() {
    fn read<T>(case: &Value) -> String
    where
        T: ToString + for<'b> minicbor::Decode<'b, ()> + minicbor::Encode<()>,
    {
        let bytes = bytes(case, "cbor");
        let id: T = cbor::decode(&bytes, bytes.len()).unwrap();
        id.to_string()
    }
    for case in list(ids(), "ids") {
        let written = match text(case, "kind") {
            "principal" => read::<PrincipalId>(case),
            "service" => read::<ServiceId>(case),
            "code_identity" => read::<CodeIdentityDigest>(case),
            "digest" => read::<Digest>(case),
            "request" => read::<RequestId>(case),
            "model_name" => read::<ModelName>(case),
            "alias" => read::<AliasName>(case),
            "group" => read::<GroupName>(case),
            "model_id" => read::<ModelId>(case),
            "model" => read::<ModelRef>(case),
            "target" => read::<ModelTarget>(case),
            other => panic!("no kind of id '{other}'"),
        };
        assert_eq!(written, text(case, "written"));
    }
}

#[test]
fn every_text_that_is_no_id_is_refused() {
    assert_eq!(list(ids(), "refused"), refused_texts());
    for case in list(ids(), "refused") {
        assert_eq!(
            read_id(text(case, "kind"), text(case, "text")),
            None,
            "{case}"
        );
    }
}
