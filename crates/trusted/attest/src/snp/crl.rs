//! The list of what AMD revoked. The ARK signs it, so an entry speaks of certificates by that authority: the ASK.
//!
//! AMD gives all VCEKs the serial number 0, and no list of the ASK's exists, so single chips cannot be revoked this way. An
//! entry that names a VCEK's number is obeyed all the same: better to refuse too much than to have misread it.

use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::X509Version;

use super::{AmdRoot, Link, MAX_CRL, SnpError, signature};

/// A list that parses and is shaped as it must be. Its signature is checked by [`Crl::check_signature`].
pub(super) struct Crl<'a> {
    list: CertificateRevocationList<'a>,
    number: u64,
}

impl<'a> Crl<'a> {
    pub(super) fn parse(der: &'a [u8], root: &AmdRoot) -> Result<Self, SnpError> {
        if der.len() > MAX_CRL {
            return Err(SnpError::TooLong(Link::Crl));
        }
        let Ok(([], list)) = CertificateRevocationList::from_der(der) else {
            return Err(SnpError::Malformed(Link::Crl));
        };
        if list.version() != Some(X509Version::V2) {
            return Err(SnpError::Malformed(Link::Crl));
        }
        let tbs = &list.tbs_cert_list;
        signature::check_frame(der, tbs.as_ref(), &list.signature_value.data, Link::Crl)?;
        if list.signature_algorithm != tbs.signature {
            return Err(SnpError::Algorithm(Link::Crl));
        }
        if list.issuer().as_raw() != root.ark().subject() {
            return Err(SnpError::Issuer(Link::Crl));
        }
        if has_critical_extension(&list) {
            return Err(SnpError::UnknownCritical(Link::Crl));
        }
        let number = list.crl_number().and_then(|number| number.try_into().ok());
        let number = number.ok_or(SnpError::Malformed(Link::Crl))?;
        Ok(Self { list, number })
    }

    /// Its number, which grows from list to list.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// When it was issued, in seconds since 1970.
    pub(super) fn issued(&self) -> u64 {
        u64::try_from(self.list.last_update().timestamp()).unwrap_or(0)
    }

    pub(super) fn check_dates(&self, now: i64) -> Result<(), SnpError> {
        // RFC 5280 lets a list go without an end; AMD's have one, and without it an old list would do for ever.
        let Some(next_update) = self.list.next_update() else {
            return Err(SnpError::Malformed(Link::Crl));
        };
        let this_update = self.list.last_update().timestamp();
        super::chain::check_period(this_update, next_update.timestamp(), now, Link::Crl)
    }

    pub(super) fn check_signature(&self, root: &AmdRoot) -> Result<(), SnpError> {
        signature::check(
            root.ark().rsa_key(),
            self.list.tbs_cert_list.as_ref(),
            &self.list.signature_value.data,
            Link::Crl,
        )
    }

    /// Refuses `link` if the list has its serial number (big-endian, without leading zeroes).
    pub(super) fn check_not_revoked(&self, serial: &[u8], link: Link) -> Result<(), SnpError> {
        let revoked = self
            .list
            .iter_revoked_certificates()
            .any(|entry| entry.serial().to_bytes_be() == serial);
        if revoked {
            return Err(SnpError::Revoked(link));
        }
        Ok(())
    }
}

/// Whether the list or an entry has a critical extension. Among those are the ones that make a list partial (a delta, one
/// distribution point) or an entry speak of another issuer; AMD uses none.
fn has_critical_extension(list: &CertificateRevocationList<'_>) -> bool {
    let entries = list.iter_revoked_certificates();
    let of_entries = entries.flat_map(|entry| entry.extensions());
    let mut all = of_entries.chain(list.extensions());
    all.any(|extension| extension.critical)
}
