//! What reaches ONNX Runtime: graphs of owners, whose weights may be elsewhere.

use std::sync::LazyLock;

use sesemi_cli::demo::data;
use sesemi_compile::split_weights;
use sesemi_onnx::messages::{
    AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto,
    data_location,
};
use sesemi_onnxruntime::external::{Outside, check};
use sesemi_protocol::package::{NOWHERE, WEIGHTS, Weight, WeightList};
use sesemi_protocol::tensor::DataType;

/// The demo's model with its weights elsewhere.
struct Split {
    /// In a part.
    part: Vec<u8>,
    /// In a list.
    listed: Vec<u8>,
    list: WeightList,
}

static SPLIT: LazyLock<Split> = LazyLock::new(|| {
    let part = split_weights(data::MODEL).unwrap().parts.remove(1);
    let mut model = sesemi_onnx::read(part.clone()).unwrap();
    let mut list = WeightList::default();
    for tensor in &mut model.graph.as_mut().unwrap().initializer {
        if !is_outside(tensor) {
            continue;
        }
        tensor.external_data.truncate(1);
        tensor.external_data[0].value = Some(NOWHERE.into());
        let shape: Vec<u64> = tensor.dims.iter().map(|extent| *extent as u64).collect();
        list.weights.push(Weight {
            name: tensor.name().into(),
            data_type: DataType::Fp32,
            offset: 0,
            length: 4 * shape.iter().product::<u64>(),
            shape,
        });
    }
    assert!(!list.weights.is_empty());
    let listed = sesemi_onnx::write(&model).unwrap();
    Split { part, listed, list }
});

/// Looks at a graph as before ONNX Runtime reads it. What is accepted has weights nowhere but where they may be, as another reader
/// sees it.
pub fn outside_weights(bytes: &[u8]) {
    let accepted = |outside| check(bytes, &outside).is_ok();
    let (inside, part) = (accepted(Outside::No), accepted(Outside::Part));
    let listed = accepted(Outside::Listed(&SPLIT.list));
    assert!(part || !inside);
    assert!(!(inside && listed));
    let Ok(model) = sesemi_onnx::read(bytes.to_vec()) else {
        return;
    };
    let mut found = Found::default();
    found.model(&model);
    if inside || part || listed {
        assert_eq!(found.elsewhere, 0);
    }
    if inside {
        assert!(found.main.is_empty());
    }
    if part {
        assert!(found.main.iter().all(|tensor| is_at(tensor, WEIGHTS)));
    }
    if listed {
        assert_eq!(found.main.len(), SPLIT.list.weights.len());
        for weight in &SPLIT.list.weights {
            let mut named = found.main.iter().filter(|it| it.name() == weight.name);
            let tensor = named.next().unwrap();
            assert!(named.next().is_none());
            assert!(is_at(tensor, NOWHERE));
            let shape: Vec<u64> = tensor.dims.iter().map(|extent| *extent as u64).collect();
            assert_eq!(shape, weight.shape);
        }
    }
}

fn is_outside(tensor: &TensorProto) -> bool {
    tensor.data_location() == data_location::EXTERNAL || !tensor.external_data.is_empty()
}

fn is_at(tensor: &TensorProto, location: &str) -> bool {
    let entries = &tensor.external_data;
    let mut locations = entries.iter().filter(|it| it.key() == "location");
    locations.next().is_some_and(|it| it.value() == location) && locations.next().is_none()
}

/// Tensors of a model whose elements are not in it.
#[derive(Default)]
struct Found<'m> {
    /// Initializers of the main graph.
    main: Vec<&'m TensorProto>,
    /// How many others.
    elsewhere: usize,
}

impl<'m> Found<'m> {
    fn model(&mut self, model: &'m ModelProto) {
        if let Some(graph) = &model.graph {
            let outside = graph.initializer.iter().filter(|it| is_outside(it));
            self.main.extend(outside);
            self.in_graph(graph);
        }
        for function in &model.functions {
            self.nodes(&function.node);
            self.attributes(&function.attribute_proto);
        }
        for training in &model.training_info {
            let graphs = training.initialization.iter().chain(&training.algorithm);
            graphs.for_each(|graph| self.graph(graph));
        }
    }

    /// A graph that is not the main one.
    fn graph(&mut self, graph: &GraphProto) {
        self.tensors(&graph.initializer);
        self.in_graph(graph);
    }

    fn in_graph(&mut self, graph: &GraphProto) {
        self.sparse(&graph.sparse_initializer);
        self.nodes(&graph.node);
    }

    fn nodes(&mut self, nodes: &[NodeProto]) {
        nodes
            .iter()
            .for_each(|node| self.attributes(&node.attribute));
    }

    fn attributes(&mut self, attributes: &[AttributeProto]) {
        for attribute in attributes {
            self.tensors(attribute.t.as_deref());
            self.tensors(&attribute.tensors);
            self.sparse(attribute.sparse_tensor.as_deref());
            self.sparse(&attribute.sparse_tensors);
            let graphs = attribute.g.as_deref().into_iter().chain(&attribute.graphs);
            graphs.for_each(|graph| self.graph(graph));
        }
    }

    fn sparse<'t>(&mut self, tensors: impl IntoIterator<Item = &'t SparseTensorProto>) {
        for tensor in tensors {
            self.tensors(&tensor.values);
            self.tensors(&tensor.indices);
        }
    }

    fn tensors<'t>(&mut self, tensors: impl IntoIterator<Item = &'t TensorProto>) {
        self.elsewhere += tensors.into_iter().filter(|it| is_outside(it)).count();
    }
}

pub(crate) fn graph_seeds() -> Vec<Vec<u8>> {
    let graphs = [data::MODEL, &SPLIT.part, &SPLIT.listed];
    let places = [Outside::No, Outside::Part, Outside::Listed(&SPLIT.list)];
    for (graph, place) in graphs.iter().zip(places) {
        check(graph, &place).unwrap();
    }
    // Numbers of 64 bits and of more, and a length of more bytes than other readers take.
    let number = |tenth: u8| [&[0x08][..], &[0xff; 9], &[tenth]].concat();
    let long = vec![0x3a, 0x80, 0x80, 0x80, 0x80, 0x80, 0];
    let broken = [number(1), number(2), long];
    let all = graphs.map(<[u8]>::to_vec).into_iter().chain(broken);
    all.collect()
}
