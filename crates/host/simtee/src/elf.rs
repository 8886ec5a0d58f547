//! As much of the ELF format as the launcher needs: is this a program, and does it name an interpreter?
//!
//! An interpreter (the dynamic linker) and the libraries that it loads are not part of the measurement, which is why a
//! simulated enclave should not have one.

const MAGIC: [u8; 4] = *b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const PT_INTERP: u32 = 3;
const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
/// Linux refuses longer paths.
const MAX_INTERPRETER_BYTES: u64 = 4096;

/// Reads bytes of a program at an offset; `None` if the program ends before.
pub(crate) trait ReadAt {
    /// Fills `buffer` from `offset` on.
    fn fill(&self, offset: u64, buffer: &mut [u8]) -> Option<()>;
}

/// The interpreter that a program asks for, if any; or what is wrong with the program.
pub(crate) fn interpreter(program: &impl ReadAt) -> Result<Option<String>, &'static str> {
    let mut header = [0; HEADER_BYTES];
    // A program shorter than its own header still gets the clearer of the two reasons.
    let mut magic = [0; MAGIC.len()];
    if program.fill(0, &mut magic).is_none() || magic != MAGIC {
        return Err("it is not an ELF file");
    }
    program
        .fill(0, &mut header)
        .ok_or("its ELF header is truncated")?;
    if header[4] != CLASS_64 || header[5] != LITTLE_ENDIAN {
        return Err("it is not a 64-bit little-endian ELF file");
    }
    let table = u64_at(&header, 32);
    let entry_bytes = u16_at(&header, 54);
    let entries = u16_at(&header, 56);
    if entries > 0 && usize::from(entry_bytes) != PROGRAM_HEADER_BYTES {
        return Err("its ELF program headers have an unknown size");
    }
    for index in 0..entries {
        let offset =
            table.checked_add(u64::from(index).saturating_mul(PROGRAM_HEADER_BYTES as u64));
        let mut entry = [0; PROGRAM_HEADER_BYTES];
        offset
            .and_then(|at| program.fill(at, &mut entry))
            .ok_or("its ELF program headers are truncated")?;
        if u32_at(&entry, 0) == PT_INTERP {
            return path(program, u64_at(&entry, 8), u64_at(&entry, 32)).map(Some);
        }
    }
    Ok(None)
}

fn path(program: &impl ReadAt, offset: u64, length: u64) -> Result<String, &'static str> {
    const BAD: &str = "the name of its ELF interpreter cannot be read";
    if length > MAX_INTERPRETER_BYTES {
        return Err(BAD);
    }
    let mut bytes = vec![0; length as usize];
    program.fill(offset, &mut bytes).ok_or(BAD)?;
    Ok(String::from_utf8_lossy(&bytes)
        .trim_end_matches('\0')
        .to_owned())
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

/// Bytes at a constant offset inside a header of constant size; zeros beyond its end.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    for (to, from) in array.iter_mut().zip(bytes.iter().skip(at)) {
        *to = *from;
    }
    array
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    impl ReadAt for Vec<u8> {
        fn fill(&self, offset: u64, buffer: &mut [u8]) -> Option<()> {
            let start = usize::try_from(offset).ok()?;
            buffer.copy_from_slice(self.get(start..start.checked_add(buffer.len())?)?);
            Some(())
        }
    }

    /// A header, then program headers of these types; an interpreter's name follows them.
    fn program(types: &[u32]) -> Vec<u8> {
        let name = b"/lib/ld.so\0";
        let name_at = (HEADER_BYTES + types.len() * PROGRAM_HEADER_BYTES) as u64;
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        (bytes[4], bytes[5]) = (CLASS_64, LITTLE_ENDIAN);
        bytes[32..40].copy_from_slice(&(HEADER_BYTES as u64).to_le_bytes());
        bytes[54..56].copy_from_slice(&(PROGRAM_HEADER_BYTES as u16).to_le_bytes());
        bytes[56..58].copy_from_slice(&(types.len() as u16).to_le_bytes());
        for kind in types {
            let mut entry = vec![0; PROGRAM_HEADER_BYTES];
            entry[..4].copy_from_slice(&kind.to_le_bytes());
            entry[8..16].copy_from_slice(&name_at.to_le_bytes());
            entry[32..40].copy_from_slice(&(name.len() as u64).to_le_bytes());
            bytes.extend(entry);
        }
        bytes.extend(name);
        bytes
    }

    #[test]
    fn a_static_program_has_no_interpreter() {
        assert_eq!(interpreter(&program(&[1, 2, 6])), Ok(None));
    }

    #[test]
    fn the_interpreter_of_a_dynamic_program_is_named() {
        assert_eq!(
            interpreter(&program(&[1, PT_INTERP])),
            Ok(Some("/lib/ld.so".to_owned()))
        );
    }

    #[test]
    fn scripts_other_classes_and_truncated_programs_are_refused() {
        assert_eq!(
            interpreter(&b"#!/bin/sh\n".to_vec()),
            Err("it is not an ELF file")
        );
        assert_eq!(interpreter(&Vec::new()), Err("it is not an ELF file"));
        let mut narrow = program(&[1]);
        narrow[4] = 1;
        assert_eq!(
            interpreter(&narrow),
            Err("it is not a 64-bit little-endian ELF file")
        );
        let mut whole = program(&[1, PT_INTERP]);
        whole.truncate(HEADER_BYTES + 10);
        assert_eq!(
            interpreter(&whole),
            Err("its ELF program headers are truncated")
        );
        whole.truncate(10);
        assert_eq!(interpreter(&whole), Err("its ELF header is truncated"));
    }

    #[test]
    fn an_interpreter_beyond_any_bound_is_refused_before_it_is_allocated() {
        let mut bytes = program(&[PT_INTERP]);
        bytes[HEADER_BYTES + 32..HEADER_BYTES + 40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(interpreter(&bytes).is_err());
    }
}
