//! What a graph says of weights that are not in it, read before ONNX Runtime reads it.
//!
//! ONNX Runtime takes a tensor for an initializer by its name alone: whether type and shape are those of the graph it does not
//! compare, and kernels that were chosen for one shape would run on another. And it looks for external data in files, or at an
//! address. So all of a model that can hold a tensor is walked through here, in protobuf's wire format: graphs, the graphs,
//! tensors and sparse tensors in attributes of nodes, functions. Elements are stepped over, and nothing is kept, so that a walk
//! takes no memory whatever the model. Field numbers are those of `onnx.proto`.

mod tensor;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::HashMap;

use sesemi_protocol::package::{NOWHERE, WEIGHTS, Weight, WeightList};

use tensor::Tensor;
use wire::{BROKEN, Value, fields};

/// Most messages in one another. (Protobuf's own readers go down to 100.)
const MAX_DEPTH: usize = 64;
/// Operators whose weights lie in blocks as wide as a processor's vectors.
const BLOCKED: &[u8] = b"com.microsoft.nchwc";

/// The weights of a model that may be elsewhere: initializers of its main graph, none but these.
#[derive(Debug)]
pub enum Outside<'l> {
    /// None.
    No,
    /// In the part of weights, by their place in it.
    Part,
    /// Those of a list, one for one.
    Listed(&'l WeightList),
}

/// What was seen on the way.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Whether there is a node whose weights lie in blocks.
    pub blocked: bool,
}

/// Walks through a model, and refuses one that looks for a weight anywhere but where it may be.
///
/// # Errors
/// What is wrong with it, in a few words.
pub fn check(model: &[u8], outside: &Outside<'_>) -> Result<Seen, &'static str> {
    let mut walk = Walk {
        outside,
        listed: HashMap::new(),
        seen: Seen::default(),
    };
    if let Outside::Listed(list) = outside {
        for weight in &list.weights {
            let name = weight.name.as_bytes();
            if walk.listed.insert(name, Some(weight)).is_some() {
                return Err(NOT_THE_LIST);
            }
        }
    }
    walk.message(model, Kind::Model, 0)?;
    if walk.listed.values().any(Option::is_some) {
        return Err(NOT_THE_LIST);
    }
    Ok(walk.seen)
}

const NOT_THE_LIST: &str = "its list of weights is not that of the graph";
const ELSEWHERE: &str = "it has weights in other files";

/// A message that can hold tensors.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    MainGraph,
    Graph,
    Node,
    Attribute,
    Function,
    Training,
    Sparse,
    /// An initializer of the main graph.
    MainInitializer,
    /// One of another graph; or the values of a sparse one, which have its name.
    Initializer,
    /// Any other tensor: its name means nothing.
    Tensor,
}

impl Kind {
    /// What a field of it is, if that can hold tensors. A message that is there twice is the sum of both, and each half is looked at.
    fn child(self, field: u32) -> Option<Self> {
        Some(match (self, field) {
            (Self::Model, 7) => Self::MainGraph,
            (Self::Model, 20) => Self::Training,
            (Self::Model, 25) => Self::Function,
            (Self::MainGraph | Self::Graph, 1) | (Self::Function, 7) => Self::Node,
            (Self::MainGraph, 5) => Self::MainInitializer,
            (Self::Graph, 5) => Self::Initializer,
            (Self::MainGraph | Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::Sparse,
            (Self::Node, 5) | (Self::Function, 11) => Self::Attribute,
            (Self::Attribute, 5 | 10) => Self::Tensor,
            (Self::Attribute, 6 | 11) | (Self::Training, 1 | 2) => Self::Graph,
            (Self::Sparse, 1 | 2) => Self::Initializer,
            _ => return None,
        })
    }
}

/// A walk under way.
struct Walk<'l> {
    outside: &'l Outside<'l>,
    /// The weights of a list by name, until they are met.
    listed: HashMap<&'l [u8], Option<&'l Weight>>,
    seen: Seen,
}

impl Walk<'_> {
    fn message(&mut self, message: &[u8], kind: Kind, depth: usize) -> Result<(), &'static str> {
        if depth > MAX_DEPTH {
            return Err("its graphs are too deep in one another");
        }
        for field in fields(message) {
            let (number, Value::Bytes(bytes)) = field? else {
                continue;
            };
            match kind.child(number) {
                Some(place @ (Kind::MainInitializer | Kind::Initializer | Kind::Tensor)) => {
                    self.tensor(&Tensor::read(bytes)?, place)?;
                }
                Some(child) => self.message(bytes, child, depth.saturating_add(1))?,
                None if kind == Kind::Node => self.node(number, bytes)?,
                None => {}
            }
        }
        Ok(())
    }

    /// A field of a node that is a text.
    fn node(&mut self, number: u32, text: &[u8]) -> Result<(), &'static str> {
        const OUTPUT: u32 = 2;
        const DOMAIN: u32 = 7;
        match number {
            // A node `Constant` is an initializer of its output's name.
            OUTPUT if self.listed.contains_key(text) => Err(NOT_THE_LIST),
            DOMAIN if text == BLOCKED => {
                self.seen.blocked = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn tensor(&mut self, tensor: &Tensor<'_>, place: Kind) -> Result<(), &'static str> {
        if tensor.is_inline() {
            let is_listed = place != Kind::Tensor && self.listed.contains_key(tensor.name);
            return if is_listed { Err(NOT_THE_LIST) } else { Ok(()) };
        }
        if place != Kind::MainInitializer {
            return Err(ELSEWHERE);
        }
        match self.outside {
            Outside::No => Err(ELSEWHERE),
            Outside::Part => tensor.is_at(WEIGHTS).then_some(()).ok_or(ELSEWHERE),
            Outside::Listed(_) => {
                if !tensor.is_at(NOWHERE) {
                    return Err(ELSEWHERE);
                }
                // None where there is no such weight, or it was met before.
                let weight = self.listed.get_mut(tensor.name).and_then(Option::take);
                let is_it = weight.is_some_and(|weight| tensor.is(weight));
                is_it.then_some(()).ok_or(NOT_THE_LIST)
            }
        }
    }
}
