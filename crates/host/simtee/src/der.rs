//! The few DER types of which the SGX extension of a PCK certificate consists.
//!
//! The certificate library writes the certificates themselves; this extension is Intel's own and has to be handed to
//! it as bytes.

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const ENUMERATED: u8 = 0x0a;
const SEQUENCE: u8 = 0x30;

/// A SEQUENCE of values that are already encoded.
pub(crate) fn sequence(items: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    tagged(SEQUENCE, &items.into_iter().flatten().collect::<Vec<u8>>())
}

/// An OCTET STRING.
pub(crate) fn octet_string(bytes: &[u8]) -> Vec<u8> {
    tagged(OCTET_STRING, bytes)
}

/// An OBJECT IDENTIFIER from the content that already encodes its arcs.
pub(crate) fn object_identifier(encoded_arcs: &[u8]) -> Vec<u8> {
    tagged(OBJECT_IDENTIFIER, encoded_arcs)
}

/// A non-negative INTEGER of at most 16 bits.
pub(crate) fn integer(value: u16) -> Vec<u8> {
    match value.to_be_bytes() {
        // A set top bit would make the number negative: such bytes get a zero in front.
        [0, low @ 0..=0x7f] => tagged(INTEGER, &[low]),
        [high @ 0..=0x7f, low] => tagged(INTEGER, &[high, low]),
        [high, low] => tagged(INTEGER, &[0, high, low]),
    }
}

/// An ENUMERATED with a value below 128.
pub(crate) fn enumerated(value: u8) -> Vec<u8> {
    tagged(ENUMERATED, &[value & 0x7f])
}

/// A BOOLEAN.
pub(crate) fn boolean(value: bool) -> Vec<u8> {
    tagged(BOOLEAN, &[if value { 0xff } else { 0x00 }])
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len().to_be_bytes();
    let significant: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    match significant.as_slice() {
        [] => out.push(0),
        [short @ 0..=0x7f] => out.push(*short),
        long => {
            // At most 8 bytes of length, so the count fits beside the long-form flag.
            out.push(0x80 | long.len() as u8);
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_use_the_shortest_form() {
        assert_eq!(octet_string(&[]), [0x04, 0x00]);
        assert_eq!(octet_string(&[0; 127])[..2], [0x04, 127]);
        assert_eq!(octet_string(&[0; 128])[..3], [0x04, 0x81, 128]);
        assert_eq!(octet_string(&[0; 300])[..4], [0x04, 0x82, 0x01, 0x2c]);
    }

    #[test]
    fn integers_stay_positive() {
        assert_eq!(integer(0), [0x02, 1, 0]);
        assert_eq!(integer(127), [0x02, 1, 127]);
        assert_eq!(integer(128), [0x02, 2, 0, 128]);
        assert_eq!(integer(0x8000), [0x02, 3, 0, 0x80, 0]);
    }
}
