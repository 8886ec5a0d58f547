//! The elements of a BYTES tensor: each a little-endian u32, which is its length, and that many bytes.
//!
//! It is the form that the Open Inference Protocol's binary extension gives BYTES. Nothing says where an element starts but all
//! that lie before it, so whoever looks for one walks through them, and nothing is allocated for what they claim to be.

use super::TensorError;

/// Bytes in front of each element.
pub(super) const LENGTH_FIELD: usize = 4;

/// The elements of a BYTES tensor, where they lie; they are what the shape asks for if [`TensorView::check`] says so.
///
/// What is no element ends them with an error.
///
/// [`TensorView::check`]: super::TensorView::check
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    /// Those of a BYTES tensor's data.
    #[must_use]
    pub fn of(data: &'a [u8]) -> Self {
        Self { rest: data }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<&'a [u8], TensorError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let element = split(self.rest);
        self.rest = element.map_or(&[], |(_, rest)| rest);
        Some(element.map(|(element, _)| element).ok_or(TensorError::Cut))
    }
}

/// The first element, and what lies behind it.
fn split(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first_chunk::<LENGTH_FIELD>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

/// The first so many elements of a BYTES tensor's data, as they lie, and what lies behind them; none if there are not so many.
#[must_use]
pub fn split_elements(data: &[u8], count: u64) -> Option<(&[u8], &[u8])> {
    let mut behind = data;
    for _ in 0..count {
        (_, behind) = split(behind)?;
    }
    data.split_at_checked(data.len().checked_sub(behind.len())?)
}

/// Checks that data is exactly so many elements.
pub(super) fn check(data: &[u8], expected: u64) -> Result<(), TensorError> {
    let mut got = 0u64;
    for element in Elements::of(data) {
        element?;
        got = got.saturating_add(1);
    }
    if got == expected {
        Ok(())
    } else {
        Err(TensorError::Elements { expected, got })
    }
}

/// Appends an element to a BYTES tensor's data.
///
/// # Errors
/// [`TensorError::Overflow`] if it is too long for its length to be written.
pub fn append(data: &mut Vec<u8>, element: &[u8]) -> Result<(), TensorError> {
    let length = u32::try_from(element.len()).map_err(|_| TensorError::Overflow)?;
    data.extend_from_slice(&length.to_le_bytes());
    data.extend_from_slice(element);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[u8]) -> Vec<Result<&[u8], TensorError>> {
        Elements::of(data).collect()
    }

    #[test]
    fn elements_of_any_bytes_read_back_as_written() {
        let written: [&[u8]; 4] = [b"", b"a\0b", "\u{e9}\u{1f600}".as_bytes(), &[0xff; 300]];
        let mut data = Vec::new();
        for element in written {
            append(&mut data, element).unwrap();
        }
        assert_eq!(data[..7], [0, 0, 0, 0, 3, 0, 0]);
        let read: Vec<&[u8]> = Elements::of(&data).map(Result::unwrap).collect();
        assert_eq!(read, written);
        assert_eq!(check(&data, 4), Ok(()));
        let (first, behind) = split_elements(&data, 2).unwrap();
        assert_eq!((first, behind), data.split_at(4 + 4 + 3));
        assert_eq!(split_elements(&data, 4), Some((&data[..], &[][..])));
        assert_eq!(split_elements(&data, 0), Some((&[][..], &data[..])));
        assert_eq!(split_elements(&data, 5), None);
        let (expected, got) = (3, 4);
        let refused = TensorError::Elements { expected, got };
        assert_eq!(check(&data, 3), Err(refused));
    }

    #[test]
    fn what_is_cut_anywhere_but_between_elements_ends_with_an_error() {
        let mut data = Vec::new();
        append(&mut data, b"ab").unwrap();
        append(&mut data, b"c").unwrap();
        for end in 0..data.len() {
            let whole = end == 0 || end == 6;
            assert_eq!(check(&data[..end], u64::from(end == 6)).is_ok(), whole);
            assert_eq!(read(&data[..end]).iter().all(Result::is_ok), whole);
        }
        // As long as can be claimed: nothing is allocated, and nothing follows.
        let endless = [0xff, 0xff, 0xff, 0xff, 1, 2, 3];
        assert_eq!(read(&endless), [Err(TensorError::Cut)]);
    }
}
