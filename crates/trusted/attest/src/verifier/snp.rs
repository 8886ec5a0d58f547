//! SEV-SNP: a report, the certificate of the chip that signed it, and AMD's revocation list.

use super::anchor::{TrustAnchor, amd_domain};
use super::endorsements::Endorsements;
use super::{Platform, VerifyError};
use crate::code_identity::{CodeIdentity, SnpMeasurement, TeeKind};
use crate::evidence::Evidence;
use crate::freshness::{Growing, Level};
use crate::snp::{self, AmdRoot, SnpReport, TcbVersion};

/// What a verified report says.
pub(super) struct Verified {
    pub(super) identity: CodeIdentity,
    pub(super) platform: Platform,
    pub(super) chip_id: Vec<u8>,
    pub(super) levels: Vec<Level>,
}

/// Verifies SEV-SNP evidence under the root of the product that the chip's certificate names.
pub(super) fn verify(
    evidence: &Evidence,
    bound_to: &[u8; 64],
    anchor: &TrustAnchor,
    endorsements: &Endorsements,
    now: u64,
) -> Result<Verified, VerifyError> {
    let parts = evidence.snp()?;
    let report = SnpReport::parse(&parts.report)?;
    // Not secret, and the peer chose it: an ordinary comparison will do.
    if report.report_data != *bound_to {
        return Err(VerifyError::NotBound);
    }
    if anchor.amd_roots().is_empty() {
        return Err(VerifyError::OtherTee(TeeKind::Snp));
    }
    let missing = || VerifyError::NoEndorsements(TeeKind::Snp);
    let (root, vcek) = match &parts.vcek {
        Some(vcek) => {
            let mut roots = anchor.amd_roots().iter();
            let root = roots.find(|root| snp::names_issuer(vcek, root));
            (root.ok_or(VerifyError::UnknownIssuer)?, vcek.as_slice())
        }
        None => known_chip(&report, anchor, endorsements).ok_or_else(missing)?,
    };
    let published = endorsements.snp(root.product()).ok_or_else(missing)?;
    // Which firmware is good enough is for the policy to say: the least of all is asked for here.
    let any = TcbVersion::default();
    let verified = snp::verify(&parts.report, vcek, root, &published.crl, now, &any)?;
    let domain = amd_domain(root);
    let level = |what, at_least| Level { what, at_least };
    Ok(Verified {
        identity: CodeIdentity::snp(domain, &measurement(&verified.report)),
        platform: Platform::Snp {
            product: root.product(),
            tcbs: [verified.reported_tcb, verified.launch_tcb],
        },
        chip_id: verified.report.chip_id.to_vec(),
        levels: vec![
            level(Growing::RootCrl { domain: domain.0 }, verified.crl_issued),
            level(Growing::SignedDate, verified.crl_issued),
        ],
    })
}

/// The certificate of a chip whose platform did not hand it out, if it is among the endorsements.
fn known_chip<'a>(
    report: &SnpReport,
    anchor: &'a TrustAnchor,
    endorsements: &'a Endorsements,
) -> Option<(&'a AmdRoot, &'a [u8])> {
    anchor
        .amd_roots()
        .iter()
        .find_map(|root| Some((root, endorsements.vcek(report, root)?)))
}

fn measurement(report: &SnpReport) -> SnpMeasurement {
    SnpMeasurement {
        measurement: report.measurement,
        id_key_digest: report.id_key_digest,
        author_key_digest: report.author_key_digest,
        guest_svn: report.guest_svn,
        family_id: report.family_id,
        image_id: report.image_id,
        host_data: report.host_data,
        policy: report.policy.0,
    }
}
