//! Versions of the firmware that a guest depends on (AMD 56860, 2.2, *TCB version*).

use super::{Product, SnpError};

/// A TCB version as it stands in a report: its layout depends on the product line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawTcb(pub [u8; 8]);

impl RawTcb {
    /// The components.
    ///
    /// # Errors
    /// [`SnpError::TcbReserved`] if bytes are in use that this product line reserves.
    pub fn decode(self, product: Product) -> Result<TcbVersion, SnpError> {
        match (product, self.0) {
            (Product::Milan | Product::Genoa, [boot_loader, tee, 0, 0, 0, 0, snp, microcode]) => {
                Ok(TcbVersion {
                    boot_loader,
                    tee,
                    snp,
                    microcode,
                    fmc: None,
                })
            }
            (Product::Turin, [fmc, boot_loader, tee, snp, 0, 0, 0, microcode]) => Ok(TcbVersion {
                boot_loader,
                tee,
                snp,
                microcode,
                fmc: Some(fmc),
            }),
            _ => Err(SnpError::TcbReserved),
        }
    }
}

/// Security versions of the components of the firmware. There is no order among them as a whole, only
/// [`TcbVersion::at_least`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcbVersion {
    /// Boot loader of the secure processor.
    pub boot_loader: u8,
    /// Operating system of the secure processor.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Lowest microcode patch level of all cores.
    pub microcode: u8,
    /// FMC firmware, which only Turin has.
    pub fmc: Option<u8>,
}

impl TcbVersion {
    /// Whether no component is below that of `minimum`. A minimum for the FMC is not met by a processor without one.
    #[must_use]
    pub fn at_least(&self, minimum: &Self) -> bool {
        self.boot_loader >= minimum.boot_loader
            && self.tee >= minimum.tee
            && self.snp >= minimum.snp
            && self.microcode >= minimum.microcode
            && self.fmc >= minimum.fmc
    }
}

impl std::fmt::Display for TcbVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(fmc) = self.fmc {
            write!(f, "FMC {fmc}, ")?;
        }
        write!(
            f,
            "boot loader {}, TEE {}, SNP {}, microcode {}",
            self.boot_loader, self.tee, self.snp, self.microcode
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: TcbVersion = TcbVersion {
        boot_loader: 2,
        tee: 2,
        snp: 2,
        microcode: 2,
        fmc: Some(2),
    };

    #[test]
    fn one_component_below_the_minimum_is_below_it() {
        assert!(BASE.at_least(&BASE));
        let lower: [fn(&mut TcbVersion); 6] = [
            |t| t.boot_loader = 1,
            |t| t.tee = 1,
            |t| t.snp = 1,
            |t| t.microcode = 1,
            |t| t.fmc = Some(1),
            |t| t.fmc = None,
        ];
        for lower in lower {
            // Everything else higher: one component does not make up for another.
            let mut tcb = TcbVersion {
                boot_loader: 9,
                tee: 9,
                snp: 9,
                microcode: 9,
                fmc: Some(9),
            };
            assert!(tcb.at_least(&BASE));
            lower(&mut tcb);
            assert!(!tcb.at_least(&BASE), "{tcb}");
        }
    }

    #[test]
    fn turin_has_a_layout_of_its_own() {
        let raw = RawTcb([1, 2, 3, 4, 0, 0, 0, 8]);
        assert_eq!(
            raw.decode(Product::Turin),
            Ok(TcbVersion {
                fmc: Some(1),
                boot_loader: 2,
                tee: 3,
                snp: 4,
                microcode: 8
            })
        );
        assert_eq!(raw.decode(Product::Milan), Err(SnpError::TcbReserved));
        let raw = RawTcb([1, 2, 0, 0, 0, 0, 7, 8]);
        for product in [Product::Milan, Product::Genoa] {
            assert_eq!(
                raw.decode(product),
                Ok(TcbVersion {
                    fmc: None,
                    boot_loader: 1,
                    tee: 2,
                    snp: 7,
                    microcode: 8
                })
            );
        }
        assert_eq!(raw.decode(Product::Turin), Err(SnpError::TcbReserved));
    }
}
