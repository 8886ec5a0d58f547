//! Strict, deterministic CBOR: one value has exactly one encoding (RFC 8949, section 4.2.1).
//!
//! Decoding re-encodes what it read and compares, which refuses in one stroke unknown fields, duplicate keys, indefinite
//! lengths, long-form integers and trailing bytes. Two parties can therefore never read one signed message in two ways.

use core::convert::Infallible;

use minicbor::encode::Write;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

/// Why bytes are not the CBOR value that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    /// The input is longer than this kind of message may be.
    #[error("message of {length} bytes is above the limit of {limit}; send less in one message")]
    TooLong {
        /// Length of the input, in bytes.
        length: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The input is not well-formed, or not of the expected shape.
    #[error("malformed CBOR: {0}")]
    Malformed(String),
    /// The input is well-formed but not the one deterministic encoding of its value.
    #[error("CBOR is not in deterministic form (RFC 8949, 4.2.1); encode it canonically")]
    NotDeterministic,
    /// A value could not be encoded.
    #[error("cannot encode: {0}")]
    Encode(String),
}

/// Longer than most messages are, in bytes, so that a buffer seldom has to grow.
const USUAL: usize = 1024;

/// A buffer that leaves nothing behind: what it held is wiped when it grows and when it is dropped. The leases that answer one
/// call are longer than any buffer that one would begin with.
struct Wiping(Zeroizing<Vec<u8>>);

impl Write for Wiping {
    type Error = Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        let needed = self.0.len().saturating_add(bytes.len());
        if needed > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.saturating_mul(2)));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Encodes `value`. The buffer is wiped on drop, because some messages carry keys.
///
/// # Errors
/// [`CborError::Encode`] if a field has no encoding.
pub fn encode<T: Encode<()>>(value: &T) -> Result<Zeroizing<Vec<u8>>, CborError> {
    let mut out = Wiping(Zeroizing::new(Vec::with_capacity(USUAL)));
    minicbor::encode(value, &mut out).map_err(|e| CborError::Encode(e.to_string()))?;
    Ok(out.0)
}

/// Decodes the one value that `bytes` hold, of at most `limit` bytes.
///
/// # Errors
/// See [`CborError`]; nothing is allocated beyond what the input itself is long.
pub fn decode<'b, T>(bytes: &'b [u8], limit: usize) -> Result<T, CborError>
where
    T: Decode<'b, ()> + Encode<()>,
{
    if bytes.len() > limit {
        return Err(CborError::TooLong {
            length: bytes.len(),
            limit,
        });
    }
    let value: T = minicbor::decode(bytes).map_err(|e| CborError::Malformed(e.to_string()))?;
    if encode(&value)?.as_slice() != bytes {
        return Err(CborError::NotDeterministic);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Encode, Decode)]
    #[cbor(map)]
    struct Sample {
        #[n(0)]
        number: u64,
        #[n(1)]
        list: Vec<u32>,
    }

    #[test]
    fn a_value_has_exactly_one_encoding() {
        let sample = Sample {
            number: 5,
            list: vec![1, 2],
        };
        let good = encode(&sample).unwrap();
        assert_eq!(decode::<Sample>(&good, 100).unwrap(), sample);

        // {0: 5, 1: [1, 2]} in other spellings: long integer, indefinite array, unknown key, trailing byte, order.
        let others: [&[u8]; 5] = [
            &[0xa2, 0x00, 0x18, 0x05, 0x01, 0x82, 0x01, 0x02],
            &[0xa2, 0x00, 0x05, 0x01, 0x9f, 0x01, 0x02, 0xff],
            &[0xa3, 0x00, 0x05, 0x01, 0x82, 0x01, 0x02, 0x07, 0x00],
            &[0xa2, 0x00, 0x05, 0x01, 0x82, 0x01, 0x02, 0x00],
            &[0xa2, 0x01, 0x82, 0x01, 0x02, 0x00, 0x05],
        ];
        for other in others {
            assert_eq!(
                decode::<Sample>(other, 100),
                Err(CborError::NotDeterministic)
            );
        }
    }

    #[test]
    fn a_value_that_is_longer_than_the_first_buffer_reads_back() {
        for items in [200, 1024, 5000, 40_000] {
            let sample = Sample {
                number: 5,
                list: (0..items).collect(),
            };
            let bytes = encode(&sample).unwrap();
            assert_eq!(bytes.as_slice(), minicbor::to_vec(&sample).unwrap());
            assert_eq!(decode::<Sample>(&bytes, 1 << 20).unwrap(), sample);
        }
    }

    #[test]
    fn a_length_that_the_input_does_not_hold_is_refused_without_allocating() {
        // An array that claims 2^60 elements.
        let bomb = [
            0xa2, 0x00, 0x05, 0x01, 0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x01,
        ];
        assert!(matches!(
            decode::<Sample>(&bomb, 100),
            Err(CborError::Malformed(_))
        ));
    }

    #[test]
    fn a_message_above_its_limit_is_refused_unread() {
        assert_eq!(
            decode::<Sample>(&[0; 101], 100),
            Err(CborError::TooLong {
                length: 101,
                limit: 100
            })
        );
    }
}
