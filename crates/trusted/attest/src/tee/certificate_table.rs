//! The table of certificates that the host of an SEV-SNP guest hands out beside a report. It comes from the host as it is,
//! so nothing in it is believed: only where the chip's certificate begins and ends is read, within the table's bounds.
//!
//! Source: AMD 56421 (Guest-Hypervisor Communication Block Standardization), 4.1.8.1: entries of a GUID, an offset and a
//! length, the end marked by an entry of zeros, then the certificates. GUIDs are in the order of their text (RFC 4122).

/// Longest table that is looked at, in bytes: what Linux hands out at most (`TSM_OUTBLOB_MAX`).
pub const MAX_TABLE: usize = 32 * 1024;
/// Length of an entry, in bytes.
const ENTRY: usize = 24;

/// 63da758d-e664-4564-adc5-f4b93be8accd
const VCEK: [u8; 16] = *b"\x63\xda\x75\x8d\xe6\x64\x45\x64\xad\xc5\xf4\xb9\x3b\xe8\xac\xcd";
/// a8074bc2-a25a-483e-aae6-39c045a0b8a1
const VLEK: [u8; 16] = *b"\xa8\x07\x4b\xc2\xa2\x5a\x48\x3e\xaa\xe6\x39\xc0\x45\xa0\xb8\xa1";

/// What of a table matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certificates<'a> {
    /// The certificate of the chip, as the host gave it.
    pub vcek: Option<&'a [u8]>,
    /// Whether the host has a certificate of a loaded key (VLEK), as clouds have instead.
    pub has_vlek: bool,
}

/// Why bytes are no table of certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Longer than [`MAX_TABLE`].
    #[error("the host's table of certificates is too long")]
    TooLong,
    /// The entry of zeros is missing.
    #[error("the host's table of certificates has no end")]
    NoEnd,
    /// An entry points outside of the table, into its entries, or to nothing.
    #[error("an entry of the host's table of certificates points outside of it")]
    OutOfBounds,
    /// Two entries for one certificate.
    #[error("the host's table of certificates names one certificate twice")]
    Twice,
}

/// Reads a table. No bytes at all are a table without certificates.
///
/// # Errors
/// [`TableError`] if any entry is not well-formed, whatever it is for.
pub fn parse(table: &[u8]) -> Result<Certificates<'_>, TableError> {
    let mut certificates = Certificates {
        vcek: None,
        has_vlek: false,
    };
    if table.is_empty() {
        return Ok(certificates);
    }
    if table.len() > MAX_TABLE {
        return Err(TableError::TooLong);
    }
    let (entries, _) = table.as_chunks::<ENTRY>();
    let end = entries
        .iter()
        .position(|entry| entry.iter().all(|byte| *byte == 0))
        .ok_or(TableError::NoEnd)?;
    // The entry of zeros is the last that counts.
    let first = end.saturating_add(1).saturating_mul(ENTRY);
    for entry in entries.iter().take(end) {
        let (guid, content) = read_entry(entry, table, first).ok_or(TableError::OutOfBounds)?;
        match guid {
            VCEK if certificates.vcek.replace(content).is_some() => return Err(TableError::Twice),
            VLEK if core::mem::replace(&mut certificates.has_vlek, true) => {
                return Err(TableError::Twice);
            }
            _ => {}
        }
    }
    Ok(certificates)
}

/// The GUID of an entry and what it points to; `None` if that is empty, out of bounds or begins before `first`.
fn read_entry<'a>(
    entry: &[u8; ENTRY],
    table: &'a [u8],
    first: usize,
) -> Option<([u8; 16], &'a [u8])> {
    let (guid, rest) = entry.split_first_chunk::<16>()?;
    let (offset, length) = rest.split_first_chunk::<4>()?;
    let offset = usize::try_from(u32::from_le_bytes(*offset)).ok()?;
    let length = usize::try_from(u32::from_le_bytes(*length.first_chunk::<4>()?)).ok()?;
    let content = table.get(offset..offset.checked_add(length)?)?;
    (offset >= first && !content.is_empty()).then_some((*guid, content))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// AMD's root and intermediate certificates: c0b406a4-a803-4952-9743-3fb6014cd0ae and
    /// 4ab7b379-bbac-4fe4-a02f-05aef327c782.
    const ARK: [u8; 16] = *b"\xc0\xb4\x06\xa4\xa8\x03\x49\x52\x97\x43\x3f\xb6\x01\x4c\xd0\xae";
    const ASK: [u8; 16] = *b"\x4a\xb7\xb3\x79\xbb\xac\x4f\xe4\xa0\x2f\x05\xae\xf3\x27\xc7\x82";

    fn entry(guid: [u8; 16], offset: u32, length: u32) -> Vec<u8> {
        [&guid[..], &offset.to_le_bytes(), &length.to_le_bytes()].concat()
    }

    /// A table as a host makes it: entries, the end, certificates one after the other.
    fn table(certificates: &[([u8; 16], &[u8])]) -> Vec<u8> {
        let mut head = Vec::new();
        let mut body = Vec::new();
        for (guid, content) in certificates {
            let offset = (certificates.len() + 1) * ENTRY + body.len();
            let length = u32::try_from(content.len()).unwrap();
            head.extend(entry(*guid, u32::try_from(offset).unwrap(), length));
            body.extend_from_slice(content);
        }
        [head, vec![0; ENTRY], body].concat()
    }

    #[test]
    fn the_chips_certificate_is_found_among_the_others() {
        let table = table(&[(ARK, b"root"), (ASK, b"signer"), (VCEK, b"the chip's")]);
        assert_eq!(
            parse(&table),
            Ok(Certificates {
                vcek: Some(b"the chip's"),
                has_vlek: false
            })
        );
    }

    #[test]
    fn a_host_without_the_chips_certificate_is_told_from_one_with_a_loaded_key() {
        let nothing = Certificates {
            vcek: None,
            has_vlek: false,
        };
        for without in [vec![], table(&[]), vec![0; 4096], table(&[(ARK, b"root")])] {
            assert_eq!(parse(&without), Ok(nothing));
        }
        let loaded = Certificates {
            has_vlek: true,
            ..nothing
        };
        assert_eq!(parse(&table(&[(VLEK, b"loaded")])), Ok(loaded));
    }

    #[test]
    fn entries_that_point_outside_of_the_certificates_are_refused() {
        let end = u32::try_from(2 * ENTRY).unwrap();
        for (offset, length) in [
            (end, 5),
            (end + 4, 1),
            (u32::MAX, u32::MAX),
            (0, 4),
            (end - 1, 4),
            (end, 0),
        ] {
            let table = [entry(VCEK, offset, length), vec![0; ENTRY], vec![7; 4]].concat();
            assert_eq!(
                parse(&table),
                Err(TableError::OutOfBounds),
                "{offset} {length}"
            );
        }
    }

    #[test]
    fn a_table_without_end_above_the_limit_or_with_one_certificate_twice_is_refused() {
        assert_eq!(parse(&[0; ENTRY - 1]), Err(TableError::NoEnd));
        assert_eq!(parse(&entry(VCEK, 0, 4)), Err(TableError::NoEnd));
        assert_eq!(parse(&vec![0; MAX_TABLE + 1]), Err(TableError::TooLong));
        for guid in [VCEK, VLEK] {
            let twice = table(&[(guid, b"one"), (guid, b"two")]);
            assert_eq!(parse(&twice), Err(TableError::Twice));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn entries_with_any_numbers_are_refused_or_lie_within_the_table(
            numbers in proptest::collection::vec((0_u32..400, 0_u32..400), 0..6),
            body in 0_usize..400,
        ) {
            let mut bytes: Vec<u8> = numbers
                .iter()
                .enumerate()
                .flat_map(|(at, (offset, length))| entry(if at == 0 { VCEK } else { ARK }, *offset, *length))
                .collect();
            let first = bytes.len() + ENTRY;
            bytes.resize(first + body, 0);
            let well_formed = numbers.iter().all(|(offset, length)| {
                let (offset, length) = (*offset as usize, *length as usize);
                offset >= first && length > 0 && offset + length <= bytes.len()
            });
            let parsed = parse(&bytes);
            prop_assert_eq!(parsed.is_ok(), well_formed);
            if let Ok(Certificates { vcek: Some(vcek), .. }) = parsed {
                prop_assert_eq!(vcek.len(), numbers[0].1 as usize);
            }
        }
    }
}
