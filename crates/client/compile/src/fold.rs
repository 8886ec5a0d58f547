//! Batch norms computed into the weights of the convolutions before them.
//!
//! Engines do that when they load a model, and keep the weights that come of it besides those that they were given: RTen had a
//! ResNet in memory twice. Here it is done once, by the owner, and the engine has nothing left to change. The arithmetic is that of
//! RTen, operation by operation, so that its results stay the same to the bit.

use std::collections::{HashMap, HashSet};

use sesemi_onnx::messages::{GraphProto, NodeProto, TensorProto, data_location, data_type};

use crate::weights::elements;

/// Of a batch norm that says nothing else.
const EPSILON: f32 = 1e-5;

/// A convolution, the batch norm of its output, and the weights that both come to.
struct Fold {
    conv: usize,
    norm: usize,
    weights: TensorProto,
    bias: TensorProto,
}

/// Folds the batch norms of a graph whose input is nothing but a convolution of constant weights. Graphs inside nodes stay as they
/// are.
pub(crate) fn fold_batch_norms(graph: &mut GraphProto) {
    let folds = Known::of(graph).folds(graph);
    let mut gone = HashSet::new();
    let mut spare = HashSet::new();
    let mut unmade = HashSet::new();
    for Fold {
        conv,
        norm,
        weights,
        bias,
    } in folds
    {
        let Some(norm_node) = graph.node.get_mut(norm) else {
            continue;
        };
        let output = std::mem::take(&mut norm_node.output);
        spare.extend(std::mem::take(&mut norm_node.input));
        gone.insert(norm);
        let Some(conv_node) = graph.node.get_mut(conv) else {
            continue;
        };
        let mut input = std::mem::take(&mut conv_node.input).into_iter();
        conv_node.input.extend(input.next());
        spare.extend(input);
        conv_node
            .input
            .extend([weights.name().to_owned(), bias.name().to_owned()]);
        unmade.extend(std::mem::replace(&mut conv_node.output, output));
        graph.initializer.extend([weights, bias]);
    }
    graph.value_info.retain(|it| !unmade.contains(it.name()));
    let mut index = 0..;
    graph
        .node
        .retain(|_| index.next().is_none_or(|at| !gone.contains(&at)));
    let mut used = HashMap::new();
    count_uses(graph, &mut used);
    spare.retain(|name| !used.contains_key(name.as_str()));
    graph
        .initializer
        .retain(|tensor| !spare.contains(tensor.name()));
}

/// What is known of a graph's values.
struct Known<'g> {
    uses: HashMap<&'g str, usize>,
    /// Which node makes a value.
    makers: HashMap<&'g str, usize>,
    /// Those that no request can replace.
    constants: HashMap<&'g str, &'g TensorProto>,
}

impl<'g> Known<'g> {
    fn of(graph: &'g GraphProto) -> Self {
        let mut uses = HashMap::new();
        count_uses(graph, &mut uses);
        let inputs: HashSet<&str> = graph.input.iter().map(|it| it.name()).collect();
        let constants = graph.initializer.iter();
        let constants = constants.filter(|it| !inputs.contains(it.name()));
        let nodes = graph.node.iter().enumerate();
        let made = nodes.flat_map(|(at, node)| node.output.iter().map(move |it| (&**it, at)));
        Self {
            uses,
            makers: made.collect(),
            constants: constants.map(|it| (it.name(), it)).collect(),
        }
    }

    fn folds(&self, graph: &GraphProto) -> Vec<Fold> {
        let nodes = graph.node.iter().enumerate();
        nodes
            .filter_map(|(at, node)| self.fold(graph, at, node))
            .collect()
    }

    fn fold(&self, graph: &GraphProto, norm: usize, node: &NodeProto) -> Option<Fold> {
        let epsilon = inference_epsilon(node)?;
        let ([input, scale, shift, mean, variance], [output]) = (&node.input[..], &node.output[..])
        else {
            return None;
        };
        let conv = *self.makers.get(input.as_str())?;
        let conv_node = graph.node.get(conv)?;
        // Whoever else takes it wants it as it is.
        if !is(conv_node, "Conv") || self.uses.get(input.as_str()) != Some(&1) {
            return None;
        }
        let (weights, bias) = match &conv_node.input[..] {
            [_, weights] => (weights, None),
            [_, weights, bias] => (weights, Some(bias).filter(|it| !it.is_empty())),
            _ => return None,
        };
        let tensor = *self.constants.get(weights.as_str())?;
        let count = usize::try_from(*tensor.dims.first()?).ok()?;
        let vector = |name: &String| {
            let values = self.floats(name)?;
            (values.len() == count).then_some(values)
        };
        let (scale, shift) = (vector(scale)?, vector(shift)?);
        let (mean, variance) = (vector(mean)?, vector(variance)?);
        let mut biases = match bias {
            None => vec![0.0; count],
            Some(bias) => vector(bias)?,
        };
        let mut values = self.floats(weights)?;
        let each = values.len().checked_div(count).filter(|it| *it > 0)?;
        let channels = values.chunks_mut(each).zip(&mut biases);
        let statistics = scale.iter().zip(&shift).zip(mean.iter().zip(&variance));
        for ((weights, bias), ((scale, shift), (mean, variance))) in channels.zip(statistics) {
            let factor = scale / (variance + epsilon).sqrt();
            if !factor.is_finite() {
                return None;
            }
            weights.iter_mut().for_each(|weight| *weight *= factor);
            *bias = (*bias - mean) * factor + shift;
        }
        let named = |what: &str| {
            let name = format!("{output}/folded-{what}");
            self.is_new(&name).then_some(name)
        };
        Some(Fold {
            conv,
            norm,
            weights: TensorProto::floats(&named("weights")?, &tensor.dims, &values),
            bias: TensorProto::floats(&named("bias")?, &[*tensor.dims.first()?], &biases),
        })
    }

    fn is_new(&self, name: &str) -> bool {
        let known = self.uses.contains_key(name) || self.makers.contains_key(name);
        !known && !self.constants.contains_key(name)
    }

    /// The values of a constant of 32-bit floats.
    fn floats(&self, name: &str) -> Option<Vec<f32>> {
        let tensor = *self.constants.get(name)?;
        if tensor.data_type() != data_type::FLOAT
            || tensor.data_location() == data_location::EXTERNAL
        {
            return None;
        }
        let (_, bytes) = elements(tensor)?;
        let (values, rest) = bytes.as_chunks::<4>();
        let asked = tensor.dims.iter().try_fold(1usize, |count, extent| {
            count.checked_mul(usize::try_from(*extent).ok()?)
        });
        (rest.is_empty() && asked == Some(values.len()))
            .then(|| values.iter().map(|it| f32::from_le_bytes(*it)).collect())
    }
}

fn is(node: &NodeProto, operator: &str) -> bool {
    node.op_type() == operator && matches!(node.domain(), "" | "ai.onnx")
}

/// The epsilon of a batch norm that only uses its statistics, channel by channel.
fn inference_epsilon(node: &NodeProto) -> Option<f32> {
    if !is(node, "BatchNormalization") {
        return None;
    }
    let mut epsilon = EPSILON;
    for attribute in &node.attribute {
        match (attribute.name(), attribute.i) {
            ("epsilon", _) => epsilon = attribute.f?,
            // What it was trained with.
            ("momentum", _) | ("training_mode", None | Some(0)) | ("spatial", Some(1)) => {}
            _ => return None,
        }
    }
    Some(epsilon)
}

/// How often each value is taken, in this graph and in those of its nodes.
fn count_uses<'g>(graph: &'g GraphProto, uses: &mut HashMap<&'g str, usize>) {
    let outputs = graph.output.iter().map(|it| it.name());
    let inputs = graph.node.iter().flat_map(|it| &it.input);
    for name in outputs.chain(inputs.map(String::as_str)) {
        let count = uses.entry(name).or_default();
        *count = count.saturating_add(1);
    }
    let attributes = graph.node.iter().flat_map(|it| &it.attribute);
    for attribute in attributes {
        let inside = attribute.g.as_deref().into_iter();
        for graph in inside.chain(&attribute.graphs) {
            count_uses(graph, uses);
        }
    }
}
