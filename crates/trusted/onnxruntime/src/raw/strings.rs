//! Tensors of strings, for BYTES. They are objects of C++, in memory of ONNX Runtime: what goes in or comes out is copied.
//!
//! A string has a length of its own here and may hold any bytes. (`FillStringTensor`, which `ort` uses, takes what ends at the
//! first zero.) Copies of what went in and of what came out are wiped; what operators make of strings in between is not.

use core::ffi::c_void;
use core::ptr::{self, NonNull};

use ort::Error;
use sesemi_protocol::limits::MAX_ENVELOPE;
use sesemi_protocol::tensor::{DataType, Elements, check, check_elements};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Value, element_type, extents};

impl Value<'static> {
    /// A tensor of copies of the elements of BYTES, wiped when it is dropped.
    ///
    /// # Errors
    /// If they are not as many as the shape asks for, or there is no memory for them.
    pub(crate) fn strings(shape: &[i64], data: &[u8]) -> Result<Self, Error> {
        let extents = extents(shape)?;
        let bytes = data.len() as u64;
        check("-", DataType::Bytes, &extents, bytes).map_err(Error::wrap)?;
        check_elements(DataType::Bytes, &extents, data).map_err(Error::wrap)?;
        let (mut allocator, mut value) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the allocator is one for the whole process and not given back. Of the shape as many extents are read as it has;
        // the strings are made there, and empty.
        unsafe {
            let api = ort::api();
            Error::result_from_status((api.GetAllocatorWithDefaultOptions)(&raw mut allocator))?;
            Error::result_from_status((api.CreateTensorAsOrtValue)(
                allocator,
                shape.as_ptr(),
                shape.len(),
                element_type(DataType::Bytes),
                &raw mut value,
            ))?;
        }
        let mut value = Self::owned(value)?;
        for (index, element) in Elements::of(data).enumerate() {
            let element = element.map_err(Error::wrap)?;
            value.strings = index.saturating_add(1);
            let place = value.string(index, element.len())?;
            place.copy_from_slice(element);
        }
        Ok(value)
    }
}

impl Value<'_> {
    /// The place of a string, which then has this length: what it had before stays as far as that fits.
    fn string(&mut self, index: usize, length: usize) -> Result<&mut [u8], Error> {
        let mut place = ptr::null_mut();
        // SAFETY: it changes a value that is taken exclusively, and refuses one that has no such string.
        unsafe {
            Error::result_from_status((ort::api().GetResizedStringTensorElementBuffer)(
                self.value.as_ptr(),
                index,
                length,
                &raw mut place,
            ))?;
        }
        let place = NonNull::new(place).ok_or_else(|| Error::new("it has no data"))?;
        // SAFETY: the string has so many bytes there, all of them set, until it is changed again, which takes the value exclusively.
        Ok(unsafe { core::slice::from_raw_parts_mut(place.as_ptr().cast::<u8>(), length) })
    }

    /// The length of a string, in bytes.
    fn string_length(&self, index: usize) -> Result<usize, Error> {
        let mut length = 0;
        // SAFETY: it only reads, and refuses a value that has no such string.
        unsafe {
            Error::result_from_status((ort::api().GetStringTensorElementLength)(
                self.value.as_ptr(),
                index,
                &raw mut length,
            ))?;
        }
        Ok(length)
    }

    /// Its strings as BYTES, of which no more are copied than a response has room for.
    pub(super) fn read_strings(&self, elements: usize) -> Result<Vec<u8>, Error> {
        let too_long = || Error::new("its strings are more than a response has room for");
        let mut lengths = Vec::new();
        let mut total = 0usize;
        for index in 0..elements {
            let length = u32::try_from(self.string_length(index)?).map_err(|_| too_long())?;
            let with_field = (length as usize).checked_add(size_of::<u32>());
            let longer = with_field.and_then(|more| total.checked_add(more));
            total = longer
                .filter(|total| *total <= MAX_ENVELOPE)
                .ok_or_else(too_long)?;
            lengths.push(length);
        }
        // Nothing is moved, and a copy that comes to nothing is wiped.
        let mut bytes = Zeroizing::new(Vec::with_capacity(total));
        for (index, length) in lengths.into_iter().enumerate() {
            bytes.extend_from_slice(&length.to_le_bytes());
            let start = bytes.len();
            bytes.resize(start.saturating_add(length as usize), 0);
            let place = bytes.get_mut(start..).unwrap_or_default();
            // SAFETY: it writes as much as the string has, and refuses one that is longer than the length it is told of.
            unsafe {
                Error::result_from_status((ort::api().GetStringTensorElement)(
                    self.value.as_ptr(),
                    place.len(),
                    index,
                    place.as_mut_ptr().cast::<c_void>(),
                ))?;
            }
        }
        Ok(std::mem::take(&mut *bytes))
    }

    /// Overwrites the first of its strings, as many as is said.
    pub(super) fn wipe_strings(&mut self, strings: usize) {
        for index in 0..strings {
            let length = self.string_length(index);
            // At its own length a string stays where it is.
            if let Ok(place) = length.and_then(|length| self.string(index, length)) {
                place.zeroize();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sesemi_protocol::tensor::Tensor;

    use super::*;
    use crate::{Library, OnnxRuntime};

    /// One with the library that is installed; none where it cannot be had, which is said.
    fn engine() -> Option<OnnxRuntime> {
        let given = std::env::var_os("SESEMI_TEST_ONNXRUNTIME").map(Into::into);
        let install = || {
            let folder = sesemi_engines::default_folder().unwrap();
            sesemi_engines::optional(sesemi_engines::ONNXRUNTIME.install(&folder)).unwrap()
        };
        let path: std::path::PathBuf = given.or_else(install)?;
        let engine = OnnxRuntime::starting(Library::load(&path).unwrap(), 1).unwrap();
        engine.environment().unwrap();
        Some(engine)
    }

    #[test]
    fn strings_that_were_wiped_are_as_long_as_before_and_all_zeros() {
        let Some(_engine) = engine() else { return };
        let long = [7u8; 1000];
        let given = Tensor::bytes("x", &[3], &[b"short".as_slice(), b"", &long]).unwrap();
        let mut value = Value::strings(&[3], &given.data).unwrap();
        assert_eq!(value.strings, 3);
        assert_eq!(value.read_strings(3).unwrap(), given.data);
        let before = value.string(2, 1000).unwrap().as_ptr();
        value.wipe_strings(3);
        assert_eq!(value.string(2, 1000).unwrap().as_ptr(), before);
        let zeros = Tensor::bytes("x", &[3], &[[0; 5].as_slice(), b"", &[0; 1000]]).unwrap();
        assert_eq!(value.read_strings(3).unwrap(), zeros.data);
        // There is no fourth one.
        assert!(value.string(3, 1).is_err());
        assert!(value.string_length(3).is_err());
        // And none that its bytes would be taken for.
        assert!(Value::strings(&[4], &given.data).is_err());
        assert!(Value::strings(&[-3], &given.data).is_err());
        assert!(Value::strings(&[3], &given.data[1..]).is_err());
    }
}
