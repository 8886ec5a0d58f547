//! The firmware of an SEV-SNP processor, as its source of derived keys. It is asked with one ioctl of `/dev/sev-guest`, and
//! this crate has no unsafe code, so the ioctl is that of the crate `sev`.

use std::io::ErrorKind;

use sev::error::UserApiError;
use sev::firmware::guest::{DerivedKey, Firmware as Guest, GuestFieldSelect};
use zeroize::Zeroizing;

use super::snp::{DerivedKeySource, KeyFields};
use crate::attester::AttesterError;

/// The version of the request that every firmware knows.
const MESSAGE_VERSION: u32 = 1;
/// The highest privilege level, at which the kernel of a guest without SVSM runs.
const VMPL: u32 = 0;

/// The real firmware.
#[derive(Debug, Clone, Copy)]
pub(super) struct Firmware;

impl DerivedKeySource for Firmware {
    fn derive(&self, fields: KeyFields) -> Result<Zeroizing<[u8; 32]>, AttesterError> {
        let mut guest = Guest::open().map_err(|error| match error.kind() {
            ErrorKind::NotFound => AttesterError::Unusable {
                tee: "snp",
                hint: "/dev/sev-guest is missing: load the kernel module sev-guest, and give the device to the container",
            },
            _ => error.into(),
        })?;
        let key = guest
            .get_derived_key(Some(MESSAGE_VERSION), request(fields))
            .map_err(|error| match error {
                UserApiError::IOError(error) => error.into(),
                other => AttesterError::Refused(other.to_string()),
            })?;
        Ok(Zeroizing::new(key))
    }
}

/// A key of the chip (not of a migration agent), with neither a security version nor a firmware version of our choice.
fn request(fields: KeyFields) -> DerivedKey {
    let mut select = GuestFieldSelect::default();
    select.set_guest_policy(fields.guest_policy);
    select.set_image_id(fields.image_id);
    select.set_family_id(fields.family_id);
    select.set_measurement(fields.measurement);
    DerivedKey::new(false, select, VMPL, 0, 0, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_for_the_chips_key_with_what_was_asked_for_mixed_in() {
        let all = KeyFields {
            guest_policy: true,
            image_id: true,
            family_id: true,
            measurement: true,
        };
        // GUEST_FIELD_SELECT: policy is bit 0, image id 1, family id 2, measurement 3 (AMD 56860, MSG_KEY_REQ).
        for (fields, bits) in [
            (all, ".0: 15,"),
            (
                KeyFields {
                    guest_policy: false,
                    ..all
                },
                ".0: 14,",
            ),
            (
                KeyFields {
                    image_id: false,
                    ..all
                },
                ".0: 13,",
            ),
            (
                KeyFields {
                    family_id: false,
                    ..all
                },
                ".0: 11,",
            ),
            (
                KeyFields {
                    measurement: false,
                    ..all
                },
                ".0: 7,",
            ),
        ] {
            let request = request(fields);
            let select = format!("{:?}", request.guest_field_select);
            assert!(select.contains(bits), "{select}");
            assert_eq!(request.get_root_key_select(), 0, "not the chip's key");
            let others = (request.vmpl, request.guest_svn, request.tcb_version);
            assert_eq!(others, (0, 0, 0));
        }
    }
}
