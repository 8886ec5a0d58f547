//! AMD's authorities: the root for a product line (ARK) and the intermediate (ASK) that certifies its chips' keys.

use x509_parser::oid_registry::{
    OID_PKCS1_RSAENCRYPTION, OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_KEY_USAGE,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::X509Version;

use super::crl::Crl;
use super::{Link, MAX_CERTIFICATE, Product, SnpError, signature};

/// The certificates that AMD publishes; see roots/amd/README.md for where they are from.
mod builtin {
    pub(super) const MILAN: [&[u8]; 2] = [
        include_bytes!("../../roots/amd/ark-milan.der"),
        include_bytes!("../../roots/amd/ask-milan.der"),
    ];
    pub(super) const GENOA: [&[u8]; 2] = [
        include_bytes!("../../roots/amd/ark-genoa.der"),
        include_bytes!("../../roots/amd/ask-genoa.der"),
    ];
    pub(super) const TURIN: [&[u8]; 2] = [
        include_bytes!("../../roots/amd/ark-turin.der"),
        include_bytes!("../../roots/amd/ask-turin.der"),
    ];
}

/// The root and the intermediate of one product line. That the root signed both was checked when this was made; dates and
/// revocation are checked at each use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmdRoot {
    product: Product,
    ark: Authority,
    ask: Authority,
}

impl AmdRoot {
    /// AMD's own, built in.
    ///
    /// # Errors
    /// None in practice; a test reads all of them.
    pub fn builtin(product: Product) -> Result<Self, SnpError> {
        let [ark, ask] = match product {
            Product::Milan => builtin::MILAN,
            Product::Genoa => builtin::GENOA,
            Product::Turin => builtin::TURIN,
        };
        Self::custom(ark, ask, product)
    }

    /// A root that whoever trusts it must name, with its intermediate, both DER. For simulators and tests.
    ///
    /// # Errors
    /// [`SnpError`] if one of them is not what AMD's are like, or `ark_der` did not sign itself and `ask_der`.
    pub fn custom(ark_der: &[u8], ask_der: &[u8], product: Product) -> Result<Self, SnpError> {
        let (ark_certificate, ark) = Authority::read(ark_der, Link::Ark)?;
        let (ask_certificate, ask) = Authority::read(ask_der, Link::Ask)?;
        for (certificate, link) in [(&ark_certificate, Link::Ark), (&ask_certificate, Link::Ask)] {
            check_issued(certificate, &ark, link)?;
        }
        Ok(Self { product, ark, ask })
    }

    /// The product line.
    #[must_use]
    pub fn product(&self) -> Product {
        self.product
    }

    /// SubjectPublicKeyInfo (DER) of the root: its SHA-256 names the trust domain.
    #[must_use]
    pub fn domain_key(&self) -> &[u8] {
        &self.ark.spki
    }

    pub(super) fn ark(&self) -> &Authority {
        &self.ark
    }

    pub(super) fn ask(&self) -> &Authority {
        &self.ask
    }

    pub(super) fn check_dates(&self, now: i64) -> Result<(), SnpError> {
        for (authority, link) in [(&self.ark, Link::Ark), (&self.ask, Link::Ask)] {
            check_period(authority.not_before, authority.not_after, now, link)?;
        }
        Ok(())
    }

    pub(super) fn check_revocation(&self, crl: &Crl<'_>) -> Result<(), SnpError> {
        crl.check_not_revoked(&self.ark.serial, Link::Ark)?;
        crl.check_not_revoked(&self.ask.serial, Link::Ask)
    }
}

/// What is kept of an authority's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority {
    subject: Vec<u8>,
    spki: Vec<u8>,
    rsa_key: Vec<u8>,
    serial: Vec<u8>,
    not_before: i64,
    not_after: i64,
}

impl Authority {
    /// Its name, DER.
    pub(super) fn subject(&self) -> &[u8] {
        &self.subject
    }

    /// Its key, PKCS #1 DER.
    pub(super) fn rsa_key(&self) -> &[u8] {
        &self.rsa_key
    }

    fn read(der: &[u8], link: Link) -> Result<(X509Certificate<'_>, Self), SnpError> {
        let certificate = parse_certificate(der, link)?;
        check_may_certify(&certificate, link)?;
        let key = certificate.public_key();
        if key.algorithm.algorithm != OID_PKCS1_RSAENCRYPTION {
            return Err(SnpError::Malformed(link));
        }
        let authority = Self {
            subject: certificate.subject().as_raw().to_vec(),
            spki: key.raw.to_vec(),
            rsa_key: key.subject_public_key.data.to_vec(),
            serial: certificate.serial.to_bytes_be(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
        };
        Ok((certificate, authority))
    }
}

fn check_may_certify(certificate: &X509Certificate<'_>, link: Link) -> Result<(), SnpError> {
    let constraints = certificate.basic_constraints();
    let usage = certificate.key_usage();
    let (Ok(Some(constraints)), Ok(Some(usage))) = (constraints, usage) else {
        return Err(SnpError::CaFlags(link));
    };
    let signs_what_it_must = match link {
        // The list is the root's to sign.
        Link::Ark => usage.value.key_cert_sign() && usage.value.crl_sign(),
        _ => usage.value.key_cert_sign(),
    };
    if constraints.value.ca && signs_what_it_must {
        Ok(())
    } else {
        Err(SnpError::CaFlags(link))
    }
}

/// Reads a certificate and checks what holds for all of AMD's: version 3, one way of signing, no surprises.
pub(super) fn parse_certificate(der: &[u8], link: Link) -> Result<X509Certificate<'_>, SnpError> {
    if der.len() > MAX_CERTIFICATE {
        return Err(SnpError::TooLong(link));
    }
    let Ok(([], certificate)) = X509Certificate::from_der(der) else {
        return Err(SnpError::Malformed(link));
    };
    if certificate.version() != X509Version::V3 {
        return Err(SnpError::Malformed(link));
    }
    let tbs = &certificate.tbs_certificate;
    let signature = &certificate.signature_value.data;
    signature::check_frame(der, tbs.as_ref(), signature, link)?;
    if certificate.signature_algorithm != tbs.signature {
        return Err(SnpError::Algorithm(link));
    }
    let understood = [OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_KEY_USAGE];
    let mut extensions = certificate.extensions().iter();
    if extensions.any(|extension| extension.critical && !understood.contains(&extension.oid)) {
        return Err(SnpError::UnknownCritical(link));
    }
    Ok(certificate)
}

/// Checks that `issuer` is named in `certificate` and signed it.
fn check_issued(
    certificate: &X509Certificate<'_>,
    issuer: &Authority,
    link: Link,
) -> Result<(), SnpError> {
    if certificate.issuer().as_raw() != issuer.subject {
        return Err(SnpError::Issuer(link));
    }
    check_signed(certificate, issuer, link)
}

pub(super) fn check_signed(
    certificate: &X509Certificate<'_>,
    issuer: &Authority,
    link: Link,
) -> Result<(), SnpError> {
    signature::check(
        &issuer.rsa_key,
        certificate.tbs_certificate.as_ref(),
        &certificate.signature_value.data,
        link,
    )
}

/// Checks that `now` is within a period, both ends included (RFC 5280, 4.1.2.5). Seconds since 1970.
pub(super) fn check_period(from: i64, to: i64, now: i64, link: Link) -> Result<(), SnpError> {
    if now < from {
        return Err(SnpError::NotYetValid(link));
    }
    if now > to {
        return Err(SnpError::Expired(link));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_roots_are_amds() {
        // SHA-256 of the certificates, as in roots/amd/README.md.
        let published = [
            (
                Product::Milan,
                builtin::MILAN,
                [
                    "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
                    "67d303bd3905fd38db8b20e0793699870e7fa612eaad5dec358293fd8c0bac1b",
                ],
            ),
            (
                Product::Genoa,
                builtin::GENOA,
                [
                    "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
                    "5464738c1546aed5f2cecf1dc98c5c960a92e8913238a61711bc90ec6e828521",
                ],
            ),
            (
                Product::Turin,
                builtin::TURIN,
                [
                    "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
                    "5b77ef5fe7a7a004fd9032668fba9d0fda22f88c4442069a479636a6ae3b3185",
                ],
            ),
        ];
        for (product, certificates, digests) in published {
            let root = AmdRoot::builtin(product).unwrap();
            assert_eq!(root.product(), product);
            for (certificate, digest) in certificates.into_iter().zip(digests) {
                assert_eq!(sesemi_protocol::Digest::of(certificate).to_string(), digest);
            }
            // Issued for the product line they stand for.
            let subject = String::from_utf8_lossy(root.ark.subject());
            assert!(subject.contains(&format!("ARK-{}", product.as_str())));
        }
    }
}
