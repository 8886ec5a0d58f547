//! Just enough of ELF to tell a static program from a dynamic one.
//!
//! A dynamic program names an interpreter, the loader that maps its shared libraries (program header `PT_INTERP`). What
//! that loader maps is no part of the file, so it would run inside a TEE unmeasured.

const PT_INTERP: u32 = 3;

/// Whether the 64-bit little-endian ELF program `file` names an interpreter; `None` if it is no such program.
pub(crate) fn has_interpreter(file: &[u8]) -> Option<bool> {
    // Magic, 64-bit class, little-endian data.
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = usize::try_from(u64::from_le_bytes(field(file, 32)?)).ok()?;
    let size = usize::from(u16::from_le_bytes(field(file, 54)?));
    let count = usize::from(u16::from_le_bytes(field(file, 56)?));
    for index in 0..count {
        let header = table.checked_add(index.checked_mul(size)?)?;
        if u32::from_le_bytes(field(file, header)?) == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

fn field<const N: usize>(file: &[u8], at: usize) -> Option<[u8; N]> {
    file.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header and program headers of the given types.
    fn program(types: &[u32]) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32..40].copy_from_slice(&64_u64.to_le_bytes());
        file[54..56].copy_from_slice(&56_u16.to_le_bytes());
        file[56..58].copy_from_slice(&u16::try_from(types.len()).unwrap().to_le_bytes());
        for kind in types {
            file.extend(kind.to_le_bytes());
            file.extend([0; 52]);
        }
        file
    }

    #[test]
    fn a_program_with_pt_interp_is_dynamic_wherever_it_stands() {
        assert_eq!(has_interpreter(&program(&[3, 1, 1])), Some(true));
        assert_eq!(has_interpreter(&program(&[6, 1, 3])), Some(true));
    }

    #[test]
    fn a_program_without_pt_interp_is_static() {
        assert_eq!(has_interpreter(&program(&[1, 2, 6])), Some(false));
    }

    #[test]
    fn what_is_no_whole_elf_program_is_neither() {
        assert_eq!(has_interpreter(b""), None);
        assert_eq!(has_interpreter(b"#!/bin/sh\n"), None);
        let whole = program(&[1, 1]);
        assert_eq!(has_interpreter(&whole[..whole.len() - 56]), None);
        let mut far = whole;
        far[32..40].fill(0xff);
        assert_eq!(has_interpreter(&far), None);
    }
}
