//! TDX: a confidential virtual machine of Intel. Its quote comes from [`configfs`](super::configfs) as it travels.
//!
//! Source of the offsets: Intel TDX DCAP Quoting Library API, A.3 (quote versions 4 and 5).

use sesemi_protocol::SecretKey;

use super::configfs::{Provider, Tsm};
use super::require_report_data;
use crate::attester::{Attester, AttesterError, SealBinding};
use crate::code_identity::TeeKind;
use crate::evidence::Evidence;

/// Where the report data stands in a quote of version 4: after a header of 48 bytes, at 520 in the body.
const REPORT_DATA_V4: core::ops::Range<usize> = 568..632;
/// In version 5 the body's type and length, 6 bytes, come before the body.
const REPORT_DATA_V5: core::ops::Range<usize> = 574..638;

/// A TDX guest.
pub struct Tdx {
    tsm: Tsm,
}

impl core::fmt::Debug for Tdx {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Tdx(..)")
    }
}

impl Tdx {
    pub(super) fn new(tsm: Tsm) -> Self {
        Self { tsm }
    }
}

impl Attester for Tdx {
    fn name(&self) -> &'static str {
        "tdx"
    }

    fn tee(&self) -> TeeKind {
        TeeKind::Tdx
    }

    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, AttesterError> {
        let quote = self.tsm.report(Provider::Tdx, report_data)?.report;
        let evidence = Evidence::from_bytes(quote)?;
        if evidence.tee() != TeeKind::Tdx {
            return Err(AttesterError::Contract("its quote is not of TDX"));
        }
        require_report_data(self::report_data(evidence.as_bytes()), report_data)?;
        Ok(evidence)
    }

    fn sealing_key(&self, _: SealBinding) -> Result<SecretKey, AttesterError> {
        Err(AttesterError::NoSealingKey {
            tee: "tdx",
            hint: "TDX derives no keys: start with recovery shares, or have a peer KeyService hand over the state",
        })
    }
}

fn report_data(quote: &[u8]) -> Option<&[u8]> {
    match quote.first()? {
        5 => quote.get(REPORT_DATA_V5),
        _ => quote.get(REPORT_DATA_V4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_that_is_cut_off_has_no_report_data() {
        assert_eq!(report_data(&[]), None);
        assert_eq!(report_data(&[4; 631]), None);
        assert_eq!(report_data(&[5; 637]), None);
    }
}
