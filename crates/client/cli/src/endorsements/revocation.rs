//! Lists of revoked certificates (RFC 5280): the encodings they come in, and the little that is read of them before evidence is
//! verified with them.

use time::OffsetDateTime;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

/// What a list says of itself. Unverified.
#[derive(Debug)]
pub(super) struct Revocation {
    /// The list, in DER.
    pub(super) der: Vec<u8>,
    /// Who issued it: the common name, empty without one.
    pub(super) issuer: String,
    /// Its number; 0 without one.
    pub(super) number: u64,
    pub(super) issued: OffsetDateTime,
    pub(super) next_update: OffsetDateTime,
}

impl Revocation {
    /// Reads a list in DER, in DER as hexadecimal digits (as caches give the root's), or in PEM.
    ///
    /// # Errors
    /// Says what is wrong.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, &'static str> {
        let der = match bytes.trim_ascii() {
            text if text.starts_with(b"-----BEGIN ") => {
                let (_, pem) = parse_x509_pem(text).map_err(|_| "its PEM is malformed")?;
                pem.contents
            }
            // 0x30 begins DER, and is the digit 0, which no list in hexadecimal begins with.
            text if text.first() != Some(&0x30) => {
                hex::decode(text).map_err(|_| "neither DER nor hexadecimal digits nor PEM")?
            }
            _ => bytes.to_vec(),
        };
        let malformed = "it is malformed";
        let Ok(([], list)) = CertificateRevocationList::from_der(&der) else {
            return Err(malformed);
        };
        let next_update = list.next_update().ok_or("it has no end")?.to_datetime();
        let issuer = list.issuer().iter_common_name().next();
        let issuer = issuer.and_then(|name| name.as_str().ok());
        let issuer = issuer.unwrap_or_default().to_owned();
        let number = list.crl_number().and_then(|number| number.try_into().ok());
        let (number, issued) = (number.unwrap_or(0), list.last_update().to_datetime());
        Ok(Self {
            der,
            issuer,
            number,
            issued,
            next_update,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILAN: &[u8] =
        include_bytes!("../../../../trusted/attest/testdata/snp/amd/crl-milan.der");

    #[test]
    fn a_list_is_read_in_each_encoding_that_services_use() {
        let der = Revocation::read(MILAN).unwrap();
        let hex = Revocation::read(format!("{}\n", hex::encode_upper(MILAN)).as_bytes()).unwrap();
        assert_eq!((&der.der[..], &hex.der[..]), (MILAN, MILAN));
        assert_eq!(der.issuer, "ARK-Milan");
        assert_eq!(der.next_update.date().to_string(), "2026-10-04");
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let cut = &MILAN[..MILAN.len() - 1];
        let longer = [MILAN, b"\0"].concat();
        for bytes in [
            b"".as_slice(),
            b"{}",
            b"zz",
            b"00",
            cut,
            &longer,
            b"-----BEGIN X509 CRL-----",
        ] {
            assert!(Revocation::read(bytes).is_err(), "{bytes:?}");
        }
    }
}
