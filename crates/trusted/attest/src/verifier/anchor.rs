//! Trust anchors: the roots that evidence must chain to. There is no default: whoever verifies names them.

use sesemi_protocol::Digest;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::VerifyError;
use crate::code_identity::TrustDomain;
use crate::snp::{AmdRoot, Product};

/// Intel's SGX Root CA, under which SGX and TDX platforms are certified; see roots/README.md for where it is from.
const INTEL_ROOT: &[u8] = include_bytes!("../../roots/intel-sgx-root-ca.der");
/// Longest root certificate that is read, in bytes.
pub(super) const MAX_ROOT: usize = 8 * 1024;

/// The roots that evidence must chain to.
#[derive(Debug, Clone)]
pub struct TrustAnchor {
    dcap: DcapRoot,
    amd: Vec<AmdRoot>,
    simulated: bool,
}

/// The root of quotes: SGX and TDX.
#[derive(Debug, Clone)]
pub(super) struct DcapRoot {
    pub(super) der: Vec<u8>,
    pub(super) domain: TrustDomain,
}

impl TrustAnchor {
    /// The production roots, built in: Intel's for SGX and TDX, AMD's for SEV-SNP on Milan, Genoa and Turin.
    ///
    /// # Errors
    /// [`VerifyError::Anchor`] never in practice; a test reads them.
    pub fn production() -> Result<Self, VerifyError> {
        let amd = [Product::Milan, Product::Genoa, Product::Turin];
        let amd: Result<_, _> = amd.into_iter().map(AmdRoot::builtin).collect();
        Ok(Self {
            dcap: DcapRoot::new(INTEL_ROOT.to_vec())?,
            amd: amd.map_err(|_| VerifyError::Anchor)?,
            simulated: false,
        })
    }

    /// The root of one simulated platform, which whoever trusts it must name. It protects nothing, and beside it no
    /// production root is believed.
    ///
    /// # Errors
    /// [`VerifyError::Anchor`] if this is no certificate.
    pub fn simulated(root_der: Vec<u8>) -> Result<Self, VerifyError> {
        Ok(Self {
            dcap: DcapRoot::new(root_der)?,
            amd: Vec::new(),
            simulated: true,
        })
    }

    /// The same, and a root of simulated SEV-SNP platforms beside it. On a production anchor it changes nothing: what is
    /// simulated is believed only where everything is.
    #[must_use]
    pub fn and_simulated_amd(mut self, root: AmdRoot) -> Self {
        if self.simulated {
            self.amd.push(root);
        }
        self
    }

    /// The trust domain of quotes that verify under this anchor.
    #[must_use]
    pub fn domain(&self) -> TrustDomain {
        self.dcap.domain
    }

    /// The trust domain of SEV-SNP reports of this product; `None` if they are not believed here.
    #[must_use]
    pub fn amd_domain(&self, product: Product) -> Option<TrustDomain> {
        self.amd_root(product).map(amd_domain)
    }

    /// Whether this is a simulator's root. Reports and measurements must say so.
    #[must_use]
    pub fn is_simulated(&self) -> bool {
        self.simulated
    }

    pub(super) fn dcap(&self) -> &DcapRoot {
        &self.dcap
    }

    pub(super) fn amd_root(&self, product: Product) -> Option<&AmdRoot> {
        self.amd.iter().find(|root| root.product() == product)
    }

    pub(super) fn amd_roots(&self) -> &[AmdRoot] {
        &self.amd
    }
}

pub(super) fn amd_domain(root: &AmdRoot) -> TrustDomain {
    TrustDomain(Digest::of(root.domain_key()))
}

impl DcapRoot {
    fn new(der: Vec<u8>) -> Result<Self, VerifyError> {
        if der.len() > MAX_ROOT {
            return Err(VerifyError::Anchor);
        }
        let Ok(([], root)) = X509Certificate::from_der(&der) else {
            return Err(VerifyError::Anchor);
        };
        let domain = TrustDomain(Digest::of(root.public_key().raw));
        Ok(Self { der, domain })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_roots_are_those_of_intel_and_amd() {
        let anchor = TrustAnchor::production().unwrap();
        assert!(!anchor.is_simulated());
        assert_eq!(
            Digest::of(&anchor.dcap.der).to_string(),
            "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
        );
        let products: Vec<_> = anchor.amd.iter().map(AmdRoot::product).collect();
        assert_eq!(products, [Product::Milan, Product::Genoa, Product::Turin]);
    }

    #[test]
    fn what_is_no_certificate_is_no_anchor() {
        for bytes in [vec![], vec![0; 10_000]] {
            assert!(matches!(
                TrustAnchor::simulated(bytes),
                Err(VerifyError::Anchor)
            ));
        }
    }
}
