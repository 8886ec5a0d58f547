//! The one place with `unsafe`: what ONNX Runtime's C interface offers and `ort` does not, or not without a copy.
//!
//! 1. Tensors over bytes that are here already ([`Value::over`]): of requests, and of weights where they were decrypted.
//! 2. Tensors of strings ([`Value::strings`]), which are any bytes here: `ort` takes texts alone, and none with a zero in it.
//! 3. Runs at the same time in one session ([`Session::run`]). `ort` takes `&mut` for a run; ONNX Runtime itself says that "multiple
//!    threads are allowed to run this function; hence its thread-safe" (`core/session/inference_session.h`, of `Run`), and what
//!    its authors know not to be is in providers for other processors, of which none is registered here.
//!
//! Whatever could make a call unsound is checked before it: types, lengths, alignment, names. Nothing in here knows about
//! models or manifests.

#![allow(unsafe_code)]

mod strings;

use core::ffi::{CStr, c_char, c_void};
use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use std::borrow::Cow;
use std::ffi::CString;
use std::sync::Arc;

use ort::session::builder::SessionBuilder;
use ort::session::{NoSelectedOutputs, RunOptions, SharedSessionInner};
use ort::sys::ONNXTensorElementDataType as ElementType;
use ort::{AsPointer as _, Error, sys};
use sesemi_process::{Wiped, wipe};
use sesemi_protocol::tensor::{self, DataType};

/// Most dimensions that are read of an output.
const MAX_OUTPUT_RANK: usize = sesemi_protocol::limits::MAX_RANK;

/// A tensor of ONNX Runtime, over bytes that live for `'d` or are its own.
#[derive(Debug)]
pub(crate) struct Value<'d> {
    value: NonNull<sys::OrtValue>,
    data: PhantomData<&'d [u8]>,
    /// How many strings it has that were made here, to be wiped with it.
    strings: usize,
}

// SAFETY: a value is a counted reference to a tensor, which belongs to no thread; nothing changes it but `wipe`, which takes
// it exclusively.
unsafe impl Send for Value<'_> {}
// SAFETY: as above.
unsafe impl Sync for Value<'_> {}

impl Drop for Value<'_> {
    fn drop(&mut self) {
        self.wipe_strings(self.strings);
        // SAFETY: it is ours, and nobody has it any more. Bytes that it only refers to are left alone.
        unsafe { (ort::api().ReleaseValue)(self.value.as_ptr()) };
    }
}

impl<'d> Value<'d> {
    /// A tensor over these bytes.
    ///
    /// # Errors
    /// If they are not aligned for their type, or not as long as type and shape ask for, or are BYTES, which are objects of C++ there.
    pub(crate) fn over(
        data_type: DataType,
        shape: &[i64],
        data: &'d [u8],
        memory: &Memory,
    ) -> Result<Self, Error> {
        if data_type.size().is_none() {
            return Err(Error::new("BYTES are not used where they lie"));
        }
        if !is_aligned(data, data_type) {
            return Err(Error::new("the tensor's bytes are not aligned"));
        }
        // Of the name nothing is wanted here but that there is one.
        let extents = extents(shape)?;
        tensor::check("-", data_type, &extents, data.len() as u64).map_err(Error::wrap)?;
        let mut value = ptr::null_mut();
        let element = element_type(data_type);
        // SAFETY: the bytes are as many as type and shape ask for, aligned, and live for as long as the value, which borrows
        // them. ONNX Runtime wants a pointer through which it might write, and does so only where it chose the memory itself:
        // it never reuses that of inputs and initializers.
        unsafe {
            Error::result_from_status((ort::api().CreateTensorWithDataAsOrtValue)(
                memory.0.as_ptr(),
                data.as_ptr().cast_mut().cast::<c_void>(),
                data.len(),
                shape.as_ptr(),
                shape.len(),
                element,
                &raw mut value,
            ))?;
        }
        Self::owned(value)
    }

    /// Takes a value that ONNX Runtime made.
    fn owned(value: *mut sys::OrtValue) -> Result<Self, Error> {
        let value = NonNull::new(value).ok_or_else(|| Error::new("there is no value"))?;
        Ok(Self {
            value,
            data: PhantomData,
            strings: 0,
        })
    }

    /// Its type, its shape, and its bytes, as they travel.
    ///
    /// # Errors
    /// If it is no tensor of a type that requests and responses have.
    fn read(&self) -> Result<Output<'_>, Error> {
        let described = self.describe()?;
        let bytes = match described.length {
            Some(length) => Cow::Borrowed(self.bytes(length)?),
            None => Cow::Owned(self.read_strings(described.elements)?),
        };
        Ok((described.data_type, described.shape, bytes))
    }

    /// The bytes of a tensor that has so many.
    fn bytes(&self, length: usize) -> Result<&[u8], Error> {
        if length == 0 {
            return Ok(&[]);
        }
        let data = NonNull::new(self.data()?).ok_or_else(|| Error::new("it has no data"))?;
        // SAFETY: a tensor of this type and shape has so many bytes on the processor that this runs on, since no other
        // provider is registered; they live and stay for as long as the value.
        Ok(unsafe { core::slice::from_raw_parts(data.as_ptr().cast::<u8>(), length) })
    }

    /// Where its bytes lie; none of strings, which lie in many places.
    fn in_place(&self) -> Result<Option<&[u8]>, Error> {
        let length = self.describe()?.length;
        length.map(|length| self.bytes(length)).transpose()
    }

    /// Overwrites what it holds.
    ///
    /// # Safety
    /// It is the value's own: not over bytes that somebody lent, and no initializer.
    pub(crate) unsafe fn wipe(&mut self) {
        let Ok(Described {
            length, elements, ..
        }) = self.describe()
        else {
            return;
        };
        let Some(length) = length else {
            self.wipe_strings(elements);
            return;
        };
        if let Some(data) = self
            .data()
            .ok()
            .and_then(NonNull::new)
            .filter(|_| length > 0)
        {
            // SAFETY: as in `bytes`; the value is taken exclusively, and the caller says that its bytes are nobody else's.
            let bytes =
                unsafe { core::slice::from_raw_parts_mut(data.as_ptr().cast::<u8>(), length) };
            wipe(bytes);
        }
    }

    fn data(&self) -> Result<*mut c_void, Error> {
        let mut data = ptr::null_mut();
        // SAFETY: the value is one, and its data is not used here.
        unsafe {
            Error::result_from_status((ort::api().GetTensorMutableData)(
                self.value.as_ptr(),
                &raw mut data,
            ))?;
        }
        Ok(data)
    }

    /// Its type, shape and length.
    fn describe(&self) -> Result<Described, Error> {
        let no_tensor = || Error::new("it is no tensor");
        let mut is_tensor = 0;
        let mut info = ptr::null_mut();
        // SAFETY: both calls read a value that is one.
        unsafe {
            let value = self.value.as_ptr();
            Error::result_from_status((ort::api().IsTensor)(value, &raw mut is_tensor))?;
            if is_tensor == 0 {
                return Err(no_tensor());
            }
            Error::result_from_status((ort::api().GetTensorTypeAndShape)(value, &raw mut info))?;
        }
        let info = Info(NonNull::new(info).ok_or_else(no_tensor)?);
        let data_type = data_type(info.element_type()?)
            .ok_or_else(|| Error::new("it has a data type that responses do not have"))?;
        let shape = info.shape()?;
        let times = |size: usize| {
            shape
                .iter()
                .try_fold(size, |length, extent| {
                    length.checked_mul(usize::try_from(*extent).ok()?)
                })
                .filter(|length| isize::try_from(*length).is_ok())
                .ok_or_else(|| Error::new("its shape is too large"))
        };
        Ok(Described {
            data_type,
            elements: times(1)?,
            length: data_type.size().map(times).transpose()?,
            shape,
        })
    }
}

/// Type, shape and bytes of a tensor.
type Output<'v> = (DataType, Vec<u64>, Cow<'v, [u8]>);

/// What a tensor says of itself.
struct Described {
    data_type: DataType,
    shape: Vec<u64>,
    elements: usize,
    /// In bytes; none of strings.
    length: Option<usize>,
}

/// A shape as requests have it.
fn extents(shape: &[i64]) -> Result<Vec<u64>, Error> {
    let extents = shape.iter().map(|extent| u64::try_from(*extent));
    extents
        .collect::<Result<_, _>>()
        .map_err(|_| Error::new("a dimension is negative"))
}

/// Type and shape of a tensor, to be given back.
struct Info(NonNull<sys::OrtTensorTypeAndShapeInfo>);

impl Drop for Info {
    fn drop(&mut self) {
        // SAFETY: it is ours, and given back once.
        unsafe { (ort::api().ReleaseTensorTypeAndShapeInfo)(self.0.as_ptr()) };
    }
}

impl Info {
    /// The number of its element type. ONNX Runtime may have one that the enumeration has not, so it is read as a number.
    fn element_type(&self) -> Result<i32, Error> {
        let mut number = 0i32;
        // SAFETY: the enumeration is represented as the number into which it is written here.
        unsafe {
            Error::result_from_status((ort::api().GetTensorElementType)(
                self.0.as_ptr(),
                (&raw mut number).cast::<ElementType>(),
            ))?;
        }
        Ok(number)
    }

    fn shape(&self) -> Result<Vec<u64>, Error> {
        let info = self.0.as_ptr();
        let mut rank = 0usize;
        // SAFETY: it only reads.
        unsafe {
            Error::result_from_status((ort::api().GetDimensionsCount)(info, &raw mut rank))?;
        }
        if rank > MAX_OUTPUT_RANK {
            return Err(Error::new("it has more dimensions than responses have"));
        }
        let mut shape = vec![0i64; rank];
        // SAFETY: it writes as many extents as it is told that there is room for.
        unsafe {
            Error::result_from_status((ort::api().GetDimensions)(info, shape.as_mut_ptr(), rank))?;
        }
        let extents = shape.into_iter().map(u64::try_from);
        extents
            .collect::<Result<_, _>>()
            .map_err(|_| Error::new("its shape has a negative extent"))
    }
}

/// What says that bytes are in ordinary memory.
#[derive(Debug)]
pub(crate) struct Memory(NonNull<sys::OrtMemoryInfo>);

// SAFETY: it is never changed.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Ordinary memory.
    ///
    /// # Errors
    /// If ONNX Runtime has no memory for it.
    pub(crate) fn ordinary() -> Result<Self, Error> {
        let mut info = ptr::null_mut();
        // SAFETY: it only writes the pointer.
        unsafe {
            Error::result_from_status((ort::api().CreateCpuMemoryInfo)(
                sys::OrtAllocatorType::OrtDeviceAllocator,
                sys::OrtMemType::OrtMemTypeDefault,
                &raw mut info,
            ))?;
        }
        let info = NonNull::new(info).ok_or_else(|| Error::new("there is no memory"))?;
        Ok(Self(info))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it is ours, and given back once.
        unsafe { (ort::api().ReleaseMemoryInfo)(self.0.as_ptr()) };
    }
}

/// The weights of a model in one buffer, wiped when they are dropped, and the values over them.
#[derive(Debug)]
pub(crate) struct Weights {
    /// Before the bytes, so that they are dropped first.
    values: Vec<(CString, Value<'static>)>,
    /// Where the weights start in the buffer.
    start: usize,
    bytes: Vec<u8>,
}

impl Drop for Weights {
    fn drop(&mut self) {
        self.values.clear();
        wipe(&mut self.bytes);
    }
}

impl Weights {
    /// Keeps a buffer where it is.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self {
            values: Vec::new(),
            start: 0,
            bytes,
        }
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Has the bytes start at a multiple of `alignment`, if they do not yet. Large buffers always do: this copies small ones.
    pub(crate) fn align(&mut self, alignment: usize) {
        if self.bytes().as_ptr().addr().is_multiple_of(alignment) || !self.values.is_empty() {
            return;
        }
        let room = self.bytes.len().saturating_add(alignment);
        let mut aligned = Vec::<u8>::with_capacity(room);
        let start = aligned.as_ptr().align_offset(alignment).min(alignment);
        aligned.resize(start, 0);
        aligned.extend_from_slice(self.bytes());
        wipe(&mut self.bytes);
        (self.start, self.bytes) = (start, aligned);
    }

    /// How much memory the bytes take.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// The memory, with the bytes in it, and without the values over them.
    fn into_memory(mut self) -> Option<Wiped> {
        self.values.clear();
        Some(Wiped(core::mem::take(&mut self.bytes))).filter(|bytes| !bytes.is_empty())
    }

    /// Makes a value over a range of the bytes, for [`Weights::lend`].
    ///
    /// # Errors
    /// If there is no such range, or it does not fit type and shape.
    pub(crate) fn add(
        &mut self,
        name: CString,
        data_type: DataType,
        shape: &[i64],
        range: core::ops::Range<usize>,
        memory: &Memory,
    ) -> Result<(), Error> {
        let bytes = self.bytes().get(range);
        let bytes = bytes.ok_or_else(|| Error::new("it lies beyond the weights"))?;
        // SAFETY: the buffer is neither changed nor moved before it is dropped, which happens after the values were.
        let bytes: &'static [u8] =
            unsafe { core::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) };
        let value = Value::over(data_type, shape, bytes, memory)?;
        self.values.push((name, value));
        Ok(())
    }

    /// Has sessions of this builder use the values where they are. They must not outlive these weights: see [`Session::new`].
    ///
    /// # Errors
    /// ONNX Runtime's.
    pub(crate) fn lend(&self, builder: &mut SessionBuilder) -> Result<(), Error> {
        for (name, value) in &self.values {
            // SAFETY: name and value live during the call, and the value for as long as the session, which keeps the weights.
            unsafe {
                Error::result_from_status((ort::api().AddInitializer)(
                    builder.ptr_mut(),
                    name.as_ptr(),
                    value.value.as_ptr(),
                ))?;
            }
        }
        Ok(())
    }

    /// Has sessions of this builder take external data at the location `name` from the bytes, of which they make copies.
    ///
    /// # Errors
    /// ONNX Runtime's.
    pub(crate) fn lend_as_file(
        &self,
        name: &CStr,
        builder: &mut SessionBuilder,
    ) -> Result<(), Error> {
        let bytes = self.bytes();
        // It is only read, whatever its type is.
        let buffers = [bytes.as_ptr().cast_mut().cast::<c_char>()];
        let (names, lengths) = ([name.as_ptr()], [bytes.len()]);
        // SAFETY: three lists of one; the bytes live until the session was made, whose owner keeps the weights.
        unsafe {
            Error::result_from_status((ort::api().AddExternalInitializersFromMemory)(
                builder.ptr_mut(),
                names.as_ptr(),
                buffers.as_ptr(),
                lengths.as_ptr(),
                1,
            ))
        }
    }
}

/// A session that many threads run at once.
#[derive(Debug)]
pub(crate) struct Session {
    /// Before the weights, so that it is dropped first.
    session: Arc<SharedSessionInner>,
    weights: Option<Weights>,
}

impl Session {
    /// A session, and the weights that it uses where they are. `ort`'s own handle is given up: nobody else runs it.
    pub(crate) fn new(session: ort::session::Session, weights: Option<Weights>) -> Self {
        Self {
            session: session.inner(),
            weights,
        }
    }

    /// Ends it, and gives the memory of weights that it used in place. They are in there still.
    pub(crate) fn into_memory(self) -> Option<Wiped> {
        let Self { session, weights } = self;
        // It reads them for as long as it is there.
        drop(Arc::into_inner(session)?);
        weights?.into_memory()
    }

    /// Whether bytes are within the weights.
    fn owns(&self, bytes: &[u8]) -> bool {
        self.weights
            .as_ref()
            .is_some_and(|weights| overlap(weights.bytes(), bytes))
    }

    /// Runs it. An output's bytes are given to `take`, in the order of `outputs`, and wiped afterwards.
    ///
    /// # Errors
    /// ONNX Runtime's, or that of `take`. Nothing is left of what the run made.
    pub(crate) fn run<T, E: From<Error>>(
        &self,
        options: &RunOptions<NoSelectedOutputs>,
        inputs: &[(&CStr, Value<'_>, &[u8])],
        outputs: &[&CStr],
        mut take: impl FnMut(usize, DataType, Vec<u64>, Cow<'_, [u8]>) -> Result<T, E>,
    ) -> Result<Vec<T>, E> {
        let input_names: Vec<*const c_char> = inputs.iter().map(|(it, ..)| it.as_ptr()).collect();
        let input_values: Vec<*const sys::OrtValue> = inputs
            .iter()
            .map(|(_, value, _)| value.value.as_ptr().cast_const())
            .collect();
        let output_names: Vec<*const c_char> = outputs.iter().map(|it| it.as_ptr()).collect();
        let mut made = vec![ptr::null_mut(); outputs.len()];
        // SAFETY: names and values live during the call and are as many as is said, and there is room for as many outputs as
        // are asked for. The session may be run by several threads at once (see above), each with options and outputs of its
        // own.
        let status = unsafe {
            Error::result_from_status((ort::api().Run)(
                self.session.ptr().cast_mut(),
                options.ptr(),
                input_names.as_ptr(),
                input_values.as_ptr(),
                inputs.len(),
                output_names.as_ptr(),
                outputs.len(),
                made.as_mut_ptr(),
            ))
        };
        // Also of a run that failed: what it made is taken, wiped and given back.
        let made = made
            .into_iter()
            .filter_map(|value| Value::owned(value).ok());
        let mut made = Made {
            session: self,
            inputs,
            values: made.collect(),
        };
        status?;
        if made.values.len() != outputs.len() {
            return Err(Error::new("an output is missing").into());
        }
        let mut taken = Vec::with_capacity(outputs.len());
        for (index, value) in made.values.iter_mut().enumerate() {
            let (data_type, shape, bytes) = value.read()?;
            taken.push(take(index, data_type, shape, bytes)?);
        }
        Ok(taken)
    }
}

/// What a run made, wiped when it is dropped.
struct Made<'r, 'd> {
    session: &'r Session,
    inputs: &'r [(&'r CStr, Value<'d>, &'r [u8])],
    values: Vec<Value<'static>>,
}

impl Drop for Made<'_, '_> {
    fn drop(&mut self) {
        for value in &mut self.values {
            let lent = match value.in_place() {
                Ok(Some(bytes)) => {
                    let mut inputs = self.inputs.iter();
                    self.session.owns(bytes) || inputs.any(|(.., input)| overlap(input, bytes))
                }
                // Strings that were put in are copies for this run, which is over.
                Ok(None) => false,
                Err(_) => true,
            };
            if !lent {
                // SAFETY: the bytes are neither of a request nor of weights that are used in place; initializers that ONNX
                // Runtime holds itself it copies into an output, because outputs belong to the caller.
                unsafe { value.wipe() };
            }
        }
    }
}

fn overlap(one: &[u8], other: &[u8]) -> bool {
    let (one, other) = (one.as_ptr_range(), other.as_ptr_range());
    one.start < other.end && other.start < one.end
}

/// Whether bytes lie so that elements of this type can be read from them.
pub(crate) fn is_aligned(data: &[u8], data_type: DataType) -> bool {
    let size = data_type.size().unwrap_or(1);
    data.as_ptr().addr().is_multiple_of(size)
}

/// ONNX Runtime's name for a data type.
pub(crate) fn element_type(data_type: DataType) -> ElementType {
    use ElementType as E;
    match data_type {
        DataType::Bool => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        DataType::Uint8 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DataType::Uint16 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        DataType::Uint32 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        DataType::Uint64 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        DataType::Int8 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DataType::Int16 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        DataType::Int32 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DataType::Int64 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DataType::Fp16 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DataType::Fp32 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DataType::Fp64 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DataType::Bf16 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DataType::Bytes => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
    }
}

fn data_type(number: i32) -> Option<DataType> {
    let mut types = DataType::ALL.into_iter();
    types.find(|it| element_type(*it) as i32 == number)
}
