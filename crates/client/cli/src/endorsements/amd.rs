//! SEV-SNP: revocation lists and certificates of chips from AMD's key distribution service (AMD 57230, *VCEK Certificate and KDS
//! Interface Specification*).

use std::path::Path;

use sesemi::TeeKind;
use sesemi_attest::Evidence;
use sesemi_attest::evidence::MAX_VCEK;
use sesemi_attest::snp::{
    AmdRoot, MAX_CRL, Product, SnpReport, TcbVersion, names_chip, names_issuer,
};

use super::EndorsementsError;
use super::fetch::{Answer, Service};
use super::report::{Fetched, Of};
use super::revocation::Revocation;

/// What people copy from documentation into addresses.
pub(super) const ENDINGS: [&str; 1] = ["/vcek/v1"];

/// What AMD publishes for one product line, and for one chip of it.
pub(super) struct Published {
    pub(super) product: Product,
    pub(super) crl: Vec<u8>,
    pub(super) crl_number: u64,
    pub(super) chip: Option<Chip>,
}

/// A chip and its certificate.
pub(super) struct Chip {
    pub(super) id: [u8; 64],
    pub(super) vcek: Vec<u8>,
}

/// A chip, and the firmware that its certificate is for.
pub(super) struct Wanted {
    chip_id: [u8; 64],
    tcb: TcbVersion,
}

impl Wanted {
    pub(super) fn from_report(
        path: &Path,
        evidence: &Evidence,
        product: Product,
    ) -> Result<Self, EndorsementsError> {
        let wrong = |why: &str| EndorsementsError::Evidence {
            path: path.to_owned(),
            why: why.to_owned(),
        };
        if evidence.tee() != TeeKind::Snp {
            return Err(wrong("it is a quote of Intel's, which --pccs is for"));
        }
        let report = evidence.snp_report().map_err(|e| wrong(&e.to_string()))?;
        Self::from_fields(&report, product).map_err(wrong)
    }

    fn from_fields(report: &SnpReport, product: Product) -> Result<Self, &'static str> {
        if report.chip_id == [0; 64] {
            return Err(
                "its host masks the chip's id (MASK_CHIP_ID); leave --evidence out to fetch the list alone",
            );
        }
        let tcb = report.reported_tcb.decode(product);
        let tcb = tcb
            .map_err(|_| "its firmware versions are not those of this product: is --amd right?")?;
        Ok(Self {
            chip_id: report.chip_id,
            tcb,
        })
    }

    /// The path of the certificate. Versions are decimal, with two digits at least.
    fn path(&self, product: Product) -> String {
        let TcbVersion {
            boot_loader,
            tee,
            snp,
            microcode,
            fmc,
        } = self.tcb;
        let (id, fmc) = match fmc {
            // Turin's ids have 8 bytes.
            Some(fmc) => (&self.chip_id[..8], format!("fmcSPL={fmc:02}&")),
            None => (&self.chip_id[..], String::new()),
        };
        format!(
            "/vcek/v1/{}/{}?{fmc}blSPL={boot_loader:02}&teeSPL={tee:02}&snpSPL={snp:02}&ucodeSPL={microcode:02}",
            product.as_str(),
            hex::encode(id)
        )
    }
}

/// Fetches the list of a product, and the certificate of a chip if one is wanted.
pub(super) async fn fetch(
    service: &Service,
    product: Product,
    wanted: Option<&Wanted>,
) -> Result<(Published, Fetched), EndorsementsError> {
    let answer = service
        .get(&format!("/vcek/v1/{}/crl", product.as_str()))
        .await?;
    let list = list(&answer, product)?;
    let chip = match wanted {
        None => None,
        Some(wanted) => {
            let answer = service.get(&wanted.path(product)).await?;
            Some(Chip {
                id: wanted.chip_id,
                vcek: vcek(&answer, product, &wanted.chip_id)?,
            })
        }
    };
    let fetched = Fetched::new(
        Of::Snp {
            product,
            vcek: wanted.map(|wanted| (wanted.chip_id, wanted.tcb)),
        },
        service.base(),
        list.number,
        list.issued,
        [("revocation list", list.next_update)],
    );
    let published = Published {
        product,
        crl: list.der,
        crl_number: list.number,
        chip,
    };
    Ok((published, fetched))
}

fn list(answer: &Answer, product: Product) -> Result<Revocation, EndorsementsError> {
    const EXPECTED: &str = "AMD's revocation list";
    let list = Revocation::read(&answer.body).map_err(|why| answer.wrong(EXPECTED, why))?;
    if list.der.len() > MAX_CRL {
        return Err(answer.wrong(EXPECTED, format!("it is longer than {MAX_CRL} bytes")));
    }
    let issuer = format!("ARK-{}", product.as_str());
    if list.issuer != issuer {
        let why = format!("it was issued by '{}', not by {issuer}", list.issuer);
        return Err(answer.wrong(EXPECTED, why));
    }
    Ok(list)
}

fn vcek(answer: &Answer, product: Product, chip: &[u8; 64]) -> Result<Vec<u8>, EndorsementsError> {
    const EXPECTED: &str = "the certificate of the chip";
    let wrong = |why: &str| answer.wrong(EXPECTED, why);
    if answer.body.len() > MAX_VCEK {
        return Err(wrong("it is too long"));
    }
    let root = AmdRoot::builtin(product).map_err(|e| answer.wrong(EXPECTED, e))?;
    if !names_issuer(&answer.body, &root) {
        return Err(wrong(
            "it does not parse, or names another issuer than the product's",
        ));
    }
    if !names_chip(&answer.body, chip) {
        return Err(wrong("it names another chip"));
    }
    Ok(answer.body.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turin_is_asked_for_with_a_short_id_and_one_version_more() {
        let mut wanted = Wanted {
            chip_id: [0xab; 64],
            tcb: TcbVersion {
                boot_loader: 3,
                tee: 0,
                snp: 10,
                microcode: 209,
                fmc: None,
            },
        };
        assert_eq!(
            wanted.path(Product::Genoa),
            format!(
                "/vcek/v1/Genoa/{}?blSPL=03&teeSPL=00&snpSPL=10&ucodeSPL=209",
                "ab".repeat(64)
            )
        );
        wanted.tcb.fmc = Some(1);
        assert_eq!(
            wanted.path(Product::Turin),
            "/vcek/v1/Turin/abababababababab?fmcSPL=01&blSPL=03&teeSPL=00&snpSPL=10&ucodeSPL=209"
        );
    }
}
