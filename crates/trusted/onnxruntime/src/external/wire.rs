//! Protobuf's wire format (<https://protobuf.dev/programming-guides/encoding/>), read no more generously than ONNX Runtime's own
//! reader: what that one would take for another field, or would refuse, is refused here.

/// Why bytes are not read.
pub(super) const BROKEN: &str = "it is no ONNX model";

/// A field's value.
pub(super) enum Value<'m> {
    Number(u64),
    Bytes(&'m [u8]),
    /// Of a fixed length: none that is looked at.
    Other,
}

/// The fields of a message.
pub(super) struct Fields<'m>(&'m [u8]);

pub(super) fn fields(message: &[u8]) -> Fields<'_> {
    Fields(message)
}

impl<'m> Fields<'m> {
    fn read(&mut self) -> Option<(u32, Value<'m>)> {
        let rest = &mut self.0;
        let tag = short(rest)?;
        let number = tag >> 3;
        if number == 0 {
            return None;
        }
        let value = match tag & 7 {
            0 => Value::Number(varint(rest)?),
            1 => take(rest, 8).map(|_| Value::Other)?,
            2 => {
                // Signed in every other reader.
                let length = i32::try_from(short(rest)?).ok()?;
                Value::Bytes(take(rest, usize::try_from(length).ok()?)?)
            }
            5 => take(rest, 4).map(|_| Value::Other)?,
            // Groups, which ONNX never had, and what nobody knows.
            _ => return None,
        };
        Some((number, value))
    }
}

impl<'m> Iterator for Fields<'m> {
    type Item = Result<(u32, Value<'m>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read().ok_or(BROKEN);
        if field.is_err() {
            // Nobody can say where the next one begins.
            self.0 = &[];
        }
        Some(field)
    }
}

fn take<'m>(rest: &mut &'m [u8], length: usize) -> Option<&'m [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

/// A field's number and wire type, or a length: at most five bytes, of 32 bits. The reader in C++ drops higher bits of a tag, so that
/// one that has some is another field there, and takes no length of more bytes.
fn short(rest: &mut &[u8]) -> Option<u32> {
    const LONGEST: usize = 5;
    let before = rest.len();
    let number = varint(rest)?;
    if before.saturating_sub(rest.len()) > LONGEST {
        return None;
    }
    u32::try_from(number).ok()
}

/// Seven bits a byte, the lowest first, at most ten bytes and 64 bits: readers do not agree on what becomes of more.
pub(super) fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, left) = rest.split_first()?;
        *rest = left;
        let bits = u64::from(byte & 0x7f);
        value |= bits << shift;
        if byte & 0x80 == 0 {
            // Of the tenth byte one bit is left.
            return (shift < 63 || bits < 2).then_some(value);
        }
    }
    None
}
