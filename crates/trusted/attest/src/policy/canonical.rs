//! The canonical form of a policy, of which its digest is taken (spec/policy.md): deterministic CBOR of
//! `["sesemi/v1/policy", code, platforms, dcap, snp]`.
//!
//! KeyService tells its clients by which policy it releases keys, and both sides must mean the same.

use minicbor::Encoder;
use minicbor::encode::Error;

use super::{AppraisalPolicy, DcapRequirements, Platforms, ReferenceValues, SnpRequirements};

type Encoding<'e> = Encoder<&'e mut Vec<u8>>;
type Failure = Error<core::convert::Infallible>;

/// The canonical form.
pub(super) fn encode(policy: &AppraisalPolicy) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut e = Encoder::new(&mut bytes);
    e.array(5)?.str("sesemi/v1/policy")?;
    code(&mut e, &policy.code)?;
    platforms(&mut e, &policy.platforms)?;
    dcap(&mut e, &policy.dcap)?;
    snp(&mut e, &policy.snp)?;
    Ok(bytes)
}

fn length<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).unwrap_or(u64::MAX)
}

/// Null, or the sorted digests.
fn code(e: &mut Encoding<'_>, code: &ReferenceValues) -> Result<(), Failure> {
    match code {
        ReferenceValues::PerRelease => e.null()?.ok(),
        ReferenceValues::Listed(listed) => {
            let listed: Vec<_> = listed.iter().collect();
            e.array(length(&listed))?;
            listed
                .iter()
                .try_for_each(|digest| e.bytes(digest.as_bytes()).map(drop))
        }
    }
}

/// Null for any, or the sorted ids.
fn platforms(e: &mut Encoding<'_>, platforms: &Platforms) -> Result<(), Failure> {
    match platforms {
        Platforms::Any => e.null()?.ok(),
        Platforms::Listed(listed) => {
            let listed: Vec<_> = listed.iter().collect();
            e.array(length(&listed))?;
            listed.iter().try_for_each(|id| e.bytes(id).map(drop))
        }
    }
}

/// `[statuses, minimum evaluation number, advisories, grace in seconds, smt, dynamic platform, cached keys]`, lists sorted
/// and without doubles.
fn dcap(e: &mut Encoding<'_>, dcap: &DcapRequirements) -> Result<(), Failure> {
    let mut statuses: Vec<String> = dcap.statuses.iter().map(ToString::to_string).collect();
    statuses.sort_unstable();
    statuses.dedup();
    let advisories: Vec<_> = dcap.advisories.iter().collect();
    e.array(7)?.array(length(&statuses))?;
    statuses
        .iter()
        .try_for_each(|status| e.str(status).map(drop))?;
    e.u32(dcap.minimum_evaluation_number)?;
    e.array(length(&advisories))?;
    advisories.iter().try_for_each(|id| e.str(id).map(drop))?;
    e.u64(dcap.grace.as_secs())?
        .bool(dcap.allow_smt)?
        .bool(dcap.allow_dynamic_platform)?
        .bool(dcap.allow_cached_keys)?
        .ok()
}

/// `[[product, fmc or null, boot loader, tee, snp, microcode]...]`, in the order Milan, Genoa, Turin.
fn snp(e: &mut Encoding<'_>, snp: &SnpRequirements) -> Result<(), Failure> {
    e.array(length(&snp.0))?;
    for (product, minimum) in &snp.0 {
        e.array(6)?.str(product.as_str())?;
        match minimum.fmc {
            Some(fmc) => e.u8(fmc)?,
            None => e.null()?,
        };
        e.u8(minimum.boot_loader)?
            .u8(minimum.tee)?
            .u8(minimum.snp)?
            .u8(minimum.microcode)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> sesemi_protocol::Digest {
        AppraisalPolicy::from_toml(text).unwrap().digest().unwrap()
    }

    const BASE: &str = "code = \"per-release\"\nplatforms = \"any\"\n";

    #[test]
    fn what_is_not_said_is_the_built_in_policy() {
        assert_eq!(
            digest(BASE),
            AppraisalPolicy::per_release().digest().unwrap()
        );
    }

    #[test]
    fn order_and_comments_do_not_matter_and_every_demand_does() {
        let with = |rest: &str| digest(&format!("{BASE}{rest}"));
        assert_eq!(
            with("# a remark\n[dcap]\ntcb-status = [\"OutOfDate\", \"SWHardeningNeeded\"]"),
            with("[dcap]\ntcb-status = [\"SWHardeningNeeded\", \"OutOfDate\", \"OutOfDate\"]"),
        );
        let turin = "[snp.turin]\nminimum-tcb = { fmc = 1, boot-loader = 2, tee = 3, snp = 4, microcode = 5 }";
        let ppid = "00".repeat(16);
        let policies = [
            digest(BASE),
            with("[dcap]\ntcb-status = [\"SWHardeningNeeded\"]"),
            with("[dcap]\nminimum-evaluation-number = 1"),
            with("[dcap]\naccepted-advisories = [\"INTEL-SA-00001\"]"),
            with("[dcap]\nout-of-date-grace-days = 1"),
            with("[dcap]\nallow-smt = true"),
            with("[dcap]\nallow-dynamic-platform = true"),
            with("[dcap]\nallow-cached-keys = true"),
            with(turin),
            with(&turin.replace("microcode = 5", "microcode = 6")),
            digest(&format!("code = \"per-release\"\nplatforms = [\"{ppid}\"]")),
            digest(&format!(
                "code = [\"{}\"]\nplatforms = \"any\"",
                "11".repeat(32)
            )),
        ];
        let different: std::collections::BTreeSet<_> =
            policies.iter().map(ToString::to_string).collect();
        assert_eq!(different.len(), policies.len());
    }
}
