//! Endorsements: what the makers of TEEs publish about their platforms. All of it is signed by them, so it may come from
//! anywhere; what is old or was revoked shows when evidence is verified with it.

use dcap_qvl::QuoteCollateralV3;
use serde::Deserialize;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use super::VerifyError;
use crate::code_identity::TeeKind;
use crate::evidence::MAX_VCEK;
use crate::snp::{AmdRoot, Product, SnpReport};

/// Longest file of endorsements that is read, in bytes.
pub const MAX_ENDORSEMENTS: usize = 1024 * 1024;
/// Most sets of endorsements, of each kind, that one verifier holds.
const MAX_SETS: usize = 256;

/// What TEE makers publish about their platforms: certificates, revocations, TCB levels.
#[derive(Debug, Clone, Default)]
pub struct Endorsements {
    dcap: Vec<DcapCollateral>,
    snp: Vec<SnpCollateral>,
}

/// Collateral for one model of processor and one kind of TEE.
#[derive(Debug, Clone)]
pub(super) struct DcapCollateral {
    tee: TeeKind,
    /// Family, model, stepping and platform, in lower-case hex as TCB info has it.
    fmspc: String,
    /// As TCB info has it (RFC 3339 in UTC), so that of two the newer is found by comparing texts.
    issued: String,
    pub(super) collateral: QuoteCollateralV3,
}

/// What AMD publishes for one product line.
#[derive(Debug, Clone)]
pub(super) struct SnpCollateral {
    pub(super) product: Product,
    /// AMD's revocation list for the product, in DER.
    pub(super) crl: Vec<u8>,
    vceks: Vec<Vec<u8>>,
}

/// The file: either one DCAP collateral as DCAP tools write it, or any number of sets.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sets {
    #[serde(default)]
    dcap: Vec<QuoteCollateralV3>,
    #[serde(default)]
    snp: Vec<SnpSet>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SnpSet {
    product: ProductName,
    crl: Hex,
    #[serde(default)]
    vceks: Vec<Hex>,
}

/// A product line as files name it.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ProductName {
    Milan,
    Genoa,
    Turin,
}

impl From<ProductName> for Product {
    fn from(name: ProductName) -> Self {
        match name {
            ProductName::Milan => Self::Milan,
            ProductName::Genoa => Self::Genoa,
            ProductName::Turin => Self::Turin,
        }
    }
}

/// Bytes in lower- or upper-case hex.
struct Hex(Vec<u8>);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        hex::decode(text)
            .map(Self)
            .map_err(|_| serde::de::Error::custom("expected bytes in hexadecimal"))
    }
}

/// The only fields of TCB info that are looked at before its signature is checked: they choose, they prove nothing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TcbInfoHead {
    #[serde(default)]
    id: String,
    fmspc: String,
    #[serde(default)]
    issue_date: String,
}

impl Endorsements {
    /// Reads endorsements as JSON: one DCAP collateral (`QuoteCollateralV3` as DCAP tools write it), or
    /// `{"dcap": [collateral...], "snp": [{"product": "milan", "crl": "<hex>", "vceks": ["<hex>"...]}...]}`.
    ///
    /// # Errors
    /// [`VerifyError::Endorsements`] if too long, too many or malformed.
    pub fn from_json(bytes: &[u8]) -> Result<Self, VerifyError> {
        if bytes.len() > MAX_ENDORSEMENTS {
            let text = format!("longer than {MAX_ENDORSEMENTS} bytes");
            return Err(VerifyError::Endorsements(text));
        }
        let malformed = |e: serde_json::Error| VerifyError::Endorsements(e.to_string());
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(malformed)?;
        if value.get("tcb_info").is_some() {
            let collateral = serde_json::from_value(value).map_err(malformed)?;
            let mut all = Self::default();
            all.add_dcap(collateral)?;
            return all.bounded();
        }
        Self::from_sets(Sets::deserialize(&value).map_err(malformed)?)
    }

    fn from_sets(sets: Sets) -> Result<Self, VerifyError> {
        if sets.dcap.is_empty() && sets.snp.is_empty() {
            let text = "there are none in it: expected \"dcap\" or \"snp\", or one DCAP collateral";
            return Err(VerifyError::Endorsements(text.into()));
        }
        let mut all = Self::default();
        for collateral in sets.dcap {
            all.add_dcap(collateral)?;
        }
        for set in sets.snp {
            all.snp.push(SnpCollateral {
                product: set.product.into(),
                crl: set.crl.0,
                vceks: set.vceks.into_iter().map(|vcek| vcek.0).collect(),
            });
        }
        all.bounded()
    }

    /// These endorsements and `others`.
    ///
    /// # Errors
    /// [`VerifyError::Endorsements`] if there are too many.
    pub fn and(mut self, others: Self) -> Result<Self, VerifyError> {
        self.dcap.extend(others.dcap);
        self.snp.extend(others.snp);
        self.bounded()
    }

    fn add_dcap(&mut self, collateral: QuoteCollateralV3) -> Result<(), VerifyError> {
        let head: TcbInfoHead = serde_json::from_str(&collateral.tcb_info)
            .map_err(|e| VerifyError::Endorsements(format!("tcb_info: {e}")))?;
        let tee = match head.id.as_str() {
            "TDX" => TeeKind::Tdx,
            _ => TeeKind::Sgx,
        };
        self.dcap.push(DcapCollateral {
            tee,
            fmspc: head.fmspc.to_ascii_lowercase(),
            issued: head.issue_date,
            collateral,
        });
        Ok(())
    }

    fn bounded(self) -> Result<Self, VerifyError> {
        let vceks = self.snp.iter().flat_map(|set| &set.vceks);
        let too_many = self.dcap.len() > MAX_SETS || self.snp.len() > MAX_SETS;
        if too_many || vceks.clone().count() > MAX_SETS {
            let text = format!("more than {MAX_SETS} sets of one kind");
            return Err(VerifyError::Endorsements(text));
        }
        match vceks.max_by_key(|vcek| vcek.len()) {
            Some(longest) if longest.len() > MAX_VCEK => Err(VerifyError::Endorsements(format!(
                "a VCEK is longer than {MAX_VCEK} bytes"
            ))),
            _ => Ok(self.newest()),
        }
    }

    /// Puts sets that were fetched on different days in order: the newest of each kind, and for all sets the newest list of each
    /// issuer. Otherwise the older one would look like an attempt to go back.
    fn newest(mut self) -> Self {
        self.dcap.sort_by(|a, b| b.issued.cmp(&a.issued));
        let lists = |pick: fn(&QuoteCollateralV3) -> &Vec<u8>| -> Vec<Vec<u8>> {
            self.dcap
                .iter()
                .map(|set| pick(&set.collateral).clone())
                .collect()
        };
        let (root, pck) = (lists(|set| &set.root_ca_crl), lists(|set| &set.pck_crl));
        for set in &mut self.dcap {
            for (list, all) in [
                (&mut set.collateral.root_ca_crl, &root),
                (&mut set.collateral.pck_crl, &pck),
            ] {
                *list = newest_of_its_issuer(list, all);
            }
        }
        self.snp
            .sort_by_key(|set| core::cmp::Reverse(issued(&set.crl)));
        self
    }

    /// The collateral for this kind of TEE on this model of processor. With only one for the kind, the model is left to the
    /// verification, which compares it anyway.
    pub(super) fn dcap(
        &self,
        tee: TeeKind,
        fmspc: impl FnOnce() -> Option<[u8; 6]>,
    ) -> Option<&DcapCollateral> {
        let mut of_kind = self.dcap.iter().filter(|set| set.tee == tee);
        match (of_kind.next(), of_kind.next()) {
            (only, None) => only,
            _ => {
                let fmspc = hex::encode(fmspc()?);
                self.dcap
                    .iter()
                    .find(|set| set.tee == tee && set.fmspc == fmspc)
            }
        }
    }

    /// What AMD published for this product.
    pub(super) fn snp(&self, product: Product) -> Option<&SnpCollateral> {
        self.snp.iter().find(|set| set.product == product)
    }

    /// The certificate of the chip and the firmware that this report speaks of, from any set for the product.
    pub(super) fn vcek(&self, report: &SnpReport, root: &AmdRoot) -> Option<&[u8]> {
        let of_product = self.snp.iter().filter(|set| set.product == root.product());
        of_product.into_iter().find_map(|set| set.of(report, root))
    }
}

impl SnpCollateral {
    /// The certificate of the chip and the firmware that this report speaks of, if it is among the endorsements.
    fn of<'a>(&'a self, report: &SnpReport, root: &AmdRoot) -> Option<&'a [u8]> {
        self.vceks
            .iter()
            .map(Vec::as_slice)
            .find(|vcek| crate::snp::names_signer(vcek, report, root))
    }
}

/// When a revocation list says that it was issued, in seconds since 1970; 0 if it cannot be read, which verification will
/// say more clearly.
pub(super) fn issued(list: &[u8]) -> u64 {
    CertificateRevocationList::from_der(list).map_or(0, |(_, list)| {
        u64::try_from(list.last_update().timestamp()).unwrap_or(0)
    })
}

fn newest_of_its_issuer(list: &[u8], all: &[Vec<u8>]) -> Vec<u8> {
    let issuer = |list: &[u8]| {
        CertificateRevocationList::from_der(list)
            .map(|(_, list)| list.issuer().as_raw().to_vec())
            .ok()
    };
    let ours = issuer(list);
    all.iter()
        .filter(|other| ours.is_some() && issuer(other) == ours)
        .max_by_key(|other| issued(other))
        .map_or_else(|| list.to_vec(), Clone::clone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endorsements_are_measured_before_they_are_read() {
        assert!(Endorsements::from_json(&vec![b' '; MAX_ENDORSEMENTS + 1]).is_err());
    }

    #[test]
    fn an_empty_set_of_endorsements_is_a_mistake_and_says_so() {
        for text in [
            "{}",
            r#"{"dcap":[],"snp":[]}"#,
            r#"{"dcap":[],"unknown":1}"#,
            "[]",
            "1",
        ] {
            assert!(Endorsements::from_json(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_are_read_from_hexadecimal_and_nothing_else() {
        let read = |text: &str| {
            let json = format!(r#"{{"snp":[{{"product":"milan","crl":"{text}"}}]}}"#);
            Endorsements::from_json(json.as_bytes()).map(|all| all.snp[0].crl.clone())
        };
        assert_eq!(read("00fFa5").unwrap(), [0, 0xff, 0xa5]);
        assert!(read("0").is_err());
        assert!(read("0g").is_err());
    }
}
