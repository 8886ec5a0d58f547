//! The list of a compiled form's weights: where each lies in the part with the weights.
//!
//! The engine makes a tensor over each of these ranges and uses it where it is, so a list that lies would make it read other
//! memory, or weights that overlap. All of it is checked here, before an engine sees any of it.

use core::ops::Range;
use std::collections::HashSet;

use minicbor::{Decode, Encode};

use crate::cbor::{self, CborError};
use crate::limits::{MAX_RANK, MAX_WEIGHT_LIST, MAX_WEIGHT_NAME};
use crate::tensor::DataType;

/// Every weight starts at a multiple of this, in bytes: a line of the processor's cache, and its widest vector.
pub const WEIGHT_ALIGNMENT: u64 = 64;

/// What the graph of a compiled form calls the place of its weights: a folder, which no engine can read weights from. So a
/// weight that the list forgot is an error and never a file of the host.
pub const NOWHERE: &str = ".";

/// One weight.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Weight {
    /// Its name in the graph.
    #[n(0)]
    pub name: String,
    /// Type of an element; not BYTES, which engines keep in memory of their own.
    #[n(1)]
    pub data_type: DataType,
    /// Extent of each dimension, outermost first; none is 0.
    #[n(2)]
    pub shape: Vec<u64>,
    /// Where it starts, from the start of the part: a multiple of [`WEIGHT_ALIGNMENT`].
    #[n(3)]
    pub offset: u64,
    /// Its length in bytes.
    #[n(4)]
    pub length: u64,
}

impl Weight {
    /// Where it lies in the part.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.length)
    }
}

/// All weights of a compiled form, in the order in which they lie.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct WeightList {
    /// The weights.
    #[n(0)]
    pub weights: Vec<Weight>,
}

/// Why a list of weights is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WeightListError {
    /// It is not the CBOR of a list.
    #[error("the list of weights is malformed: {0}")]
    Cbor(#[from] CborError),
    /// One of its entries cannot be.
    #[error("weight {index} of the list {why}")]
    Weight {
        /// Which one, from 0.
        index: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is something behind the last weight.
    #[error("the weights end at {listed} and have {found} bytes")]
    Length {
        /// Where the last one of the list ends.
        listed: u64,
        /// Bytes that there are.
        found: u64,
    },
}

impl WeightList {
    /// Reads the list of weights that have `length` bytes together.
    ///
    /// # Errors
    /// [`WeightListError`]: it is no list; two weights have one name, or share a byte; one is not as long as its type and
    /// shape say, ends beyond `length`, or does not start at the first multiple of 64 after the one before; there is
    /// something behind the last one.
    pub fn decode(bytes: &[u8], length: u64) -> Result<Self, WeightListError> {
        let list: Self = cbor::decode(bytes, MAX_WEIGHT_LIST)?;
        list.check(length)?;
        Ok(list)
    }

    /// Encodes it.
    ///
    /// # Errors
    /// [`WeightListError`]: what [`decode`](Self::decode) would refuse.
    pub fn encode(&self, length: u64) -> Result<Vec<u8>, WeightListError> {
        self.check(length)?;
        Ok(cbor::encode(self)?.to_vec())
    }

    fn check(&self, length: u64) -> Result<(), WeightListError> {
        let mut names = HashSet::with_capacity(self.weights.len());
        let mut end = 0u64;
        for (index, weight) in self.weights.iter().enumerate() {
            let wrong = |why| WeightListError::Weight { index, why };
            if !names.insert(weight.name.as_str()) {
                return Err(wrong("has the name of another"));
            }
            end = checked_end(weight, end, length).map_err(wrong)?;
        }
        if end != length {
            return Err(WeightListError::Length {
                listed: end,
                found: length,
            });
        }
        Ok(())
    }
}

/// Where a weight ends that lies behind one that ends at `before`.
fn checked_end(weight: &Weight, before: u64, length: u64) -> Result<u64, &'static str> {
    // The engine's interface takes names that end at the first zero.
    if weight.name.is_empty() || weight.name.len() > MAX_WEIGHT_NAME || weight.name.contains('\0') {
        return Err("has no name that a graph can have");
    }
    if weight.shape.len() > MAX_RANK {
        return Err("has too many dimensions");
    }
    let Some(size) = weight.data_type.size() else {
        return Err("is of BYTES, which cannot be used where they lie");
    };
    let bytes = weight.shape.iter().try_fold(size as u64, |bytes, extent| {
        i64::try_from(*extent).ok()?;
        bytes.checked_mul(*extent)
    });
    if bytes != Some(weight.length) || weight.length == 0 {
        return Err("has not the length that its type and shape ask for");
    }
    if before.checked_next_multiple_of(WEIGHT_ALIGNMENT) != Some(weight.offset) {
        return Err("does not start at the first multiple of 64 behind the one before");
    }
    let end = weight.offset.checked_add(weight.length);
    end.filter(|end| *end <= length)
        .ok_or("ends beyond the weights")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(name: &str, shape: &[u64], offset: u64) -> Weight {
        Weight {
            name: name.into(),
            data_type: DataType::Fp32,
            shape: shape.to_vec(),
            offset,
            length: 4 * shape.iter().product::<u64>(),
        }
    }

    fn good() -> WeightList {
        let weights = vec![weight("a", &[5, 2], 0), weight("b", &[], 64)];
        WeightList { weights }
    }

    fn refused(change: impl FnOnce(&mut Vec<Weight>)) -> WeightListError {
        let mut list = good();
        change(&mut list.weights);
        let bytes = cbor::encode(&list).unwrap();
        let error = WeightList::decode(&bytes, 68).unwrap_err();
        assert_eq!(list.encode(68).unwrap_err(), error);
        error
    }

    #[test]
    fn a_list_reads_back_as_written() {
        let bytes = good().encode(68).unwrap();
        assert_eq!(WeightList::decode(&bytes, 68).unwrap(), good());
        let empty = WeightList::default().encode(0).unwrap();
        assert_eq!(WeightList::decode(&empty, 0).unwrap().weights, []);
    }

    #[test]
    fn a_list_that_lies_is_refused() {
        let cases: [fn(&mut Vec<Weight>); 14] = [
            |it| it[1].offset = 128,
            |it| it[1].offset = 0,
            |it| it[1].offset = 60,
            |it| it[1].offset = !63,
            |it| it[1].length = 8,
            |it| it[1].length = 0,
            |it| it[1].data_type = DataType::Fp64,
            |it| it[1].data_type = DataType::Bytes,
            |it| it[1].shape = vec![u64::MAX, u64::MAX],
            |it| it[1].shape = vec![1; 9],
            |it| it[1].shape = vec![0],
            |it| it[1].name = "a".into(),
            |it| it[1].name = "b\0".into(),
            |it| it[1].name = "b".repeat(MAX_WEIGHT_NAME + 1),
        ];
        for change in cases {
            let error = refused(change);
            assert!(
                matches!(error, WeightListError::Weight { index: 1, .. }),
                "{error}"
            );
        }
        let longer = refused(|it| {
            it[1].shape = vec![2];
            it[1].length = 8;
        });
        assert!(longer.to_string().contains("ends beyond"));
        let shorter = refused(|it| {
            it.pop();
        });
        assert_eq!(
            shorter,
            WeightListError::Length {
                listed: 40,
                found: 68
            }
        );
    }

    #[test]
    fn a_list_that_is_cut_or_has_more_behind_it_is_refused() {
        let bytes = good().encode(68).unwrap();
        for end in 0..bytes.len() {
            assert!(WeightList::decode(&bytes[..end], 68).is_err());
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(WeightList::decode(&longer, 68).is_err());
        let long = vec![0; MAX_WEIGHT_LIST + 1];
        assert!(matches!(
            WeightList::decode(&long, 0),
            Err(WeightListError::Cbor(CborError::TooLong { .. }))
        ));
    }
}
