//! Evidence as it travels, and what a TEE keeps on the host's disk.

use sesemi_attest::evidence::{MAX_EVIDENCE, MAX_VCEK, SNP_REPORT};
use sesemi_attest::freshness::{FreshnessFloor, Growing, Level};
use sesemi_attest::sealing::{OVERHEAD, Sealer};
use sesemi_attest::{Evidence, TeeKind};
use sesemi_protocol::{Digest, cbor};

use super::testdata;
use crate::input::Input;
use crate::samples::{Fixed, key};

/// Reads the bytes as evidence, and as the parts of SEV-SNP evidence. What is accepted is kept as it came.
pub fn evidence(bytes: &[u8]) {
    if let Ok(evidence) = Evidence::from_bytes(bytes.to_vec()) {
        assert!(bytes.len() <= MAX_EVIDENCE);
        assert_eq!(evidence.as_bytes(), bytes);
        assert_eq!(
            evidence.tee() == TeeKind::Snp,
            matches!(bytes[0], 0xa1 | 0xa2)
        );
    }
    let mut input = Input::new(bytes);
    let report = input.bytes(SNP_REPORT);
    let vcek = input.rest();
    for vcek in [Some(vcek), None] {
        let accepted = Evidence::from_snp(report, vcek);
        let length = vcek.map_or(0, <[u8]>::len);
        assert_eq!(
            accepted.is_ok(),
            report.len() == SNP_REPORT && length <= MAX_VCEK
        );
        if let Ok(evidence) = accepted {
            let again = Evidence::from_bytes(evidence.as_bytes().to_vec());
            assert_eq!(again, Ok(evidence));
        }
    }
}

/// Reads the bytes as a freshness floor. Levels only grow, and what a floor says of itself makes the same floor.
pub fn freshness_levels(bytes: &[u8]) {
    let Ok(levels) = cbor::decode::<Vec<Level>>(bytes, bytes.len()) else {
        return;
    };
    assert_eq!(cbor::encode(&levels).unwrap().as_slice(), bytes);
    let floor = FreshnessFloor::default();
    if floor.raise_to(&levels).is_err() {
        return;
    }
    let kept = floor.snapshot();
    let at_least = |what| kept.iter().find(|kept: &&Level| kept.what == what);
    for level in &levels {
        assert!(at_least(level.what).unwrap().at_least >= level.at_least);
    }
    assert!(kept.iter().all(|level| levels.contains(level)));
    let again = FreshnessFloor::default();
    again.raise_to(&kept).unwrap();
    assert_eq!(again.snapshot(), kept);
    assert!(floor.time(5) >= 5);
}

const PLACE: &[u8] = b"a place";
const CONTENT: &[u8] = b"what the TEE keeps";

/// Reads the bytes as sealed state. Only what was sealed opens, with its key, in its place and for its purpose.
pub fn sealed_state(bytes: &[u8]) {
    let open = |number, purpose: &str, place: &[u8]| {
        let sealer = Sealer::new(&key(number), purpose).unwrap();
        sealer.unseal(place, bytes).ok()
    };
    assert_eq!(open(2, "fuzz", PLACE), None, "another key");
    assert_eq!(open(1, "another", PLACE), None, "another purpose");
    assert_eq!(open(1, "fuzz", b"another place"), None, "another place");
    let opened = open(1, "fuzz", PLACE);
    assert_eq!(opened.is_some(), bytes == sealed());
    assert!(opened.is_none_or(|opened| opened.as_slice() == CONTENT));
}

fn sealed() -> Vec<u8> {
    let sealer = Sealer::new(&key(1), "fuzz").unwrap();
    sealer.seal(PLACE, CONTENT, &Fixed).unwrap()
}

pub(crate) fn evidence_seeds() -> Vec<Vec<u8>> {
    let report = testdata!("snp/amd/report-milan.bin");
    let vcek = testdata!("snp/amd/vcek-milan.der");
    let evidence = |vcek| {
        let evidence = Evidence::from_snp(report, vcek).unwrap();
        evidence.as_bytes().to_vec()
    };
    vec![
        testdata!("dcap/sgx-v3.quote").to_vec(),
        testdata!("dcap/tdx-v4.quote").to_vec(),
        testdata!("dcap/tdx-v5.quote").to_vec(),
        evidence(Some(vcek)),
        evidence(None),
        [report.as_slice(), vcek].concat(),
    ]
}

pub(crate) fn freshness_seeds() -> Vec<Vec<u8>> {
    let domain = Digest([1; 32]);
    let all = [
        Growing::SignedDate,
        Growing::EvaluationNumber {
            domain,
            tee: TeeKind::Tdx,
            fmspc: [2; 6],
        },
        Growing::RootCrl { domain },
        Growing::PckCrl {
            domain,
            platform_ca: true,
        },
    ];
    let levels: Vec<Level> = all
        .iter()
        .chain(&all[..1])
        .zip([1_790_000_000, 17, 3, u64::MAX, 5])
        .map(|(what, at_least)| Level {
            what: *what,
            at_least,
        })
        .collect();
    let seeds = [&levels[..], &levels[..1], &[]];
    let encode = |levels: &&[Level]| cbor::encode(levels).unwrap().to_vec();
    seeds.iter().map(encode).collect()
}

pub(crate) fn sealed_seeds() -> Vec<Vec<u8>> {
    vec![sealed(), vec![0; OVERHEAD]]
}
