//! Every way to bring in a weight past the list, or from a file.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use sesemi_onnx::messages::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto,
    StringStringEntryProto, TensorProto, TrainingInfoProto, data_location, data_type,
};
use sesemi_protocol::package::{NOWHERE, WEIGHTS, Weight, WeightList};
use sesemi_protocol::tensor::DataType;

use super::{MAX_DEPTH, Outside, Seen, check};

fn inline(name: &str) -> TensorProto {
    TensorProto::floats(name, &[2], &[1.0, 2.0])
}

fn external(name: &str, location: &str) -> TensorProto {
    TensorProto {
        raw_data: None,
        external_data: vec![StringStringEntryProto::new("location", location)],
        data_location: Some(data_location::EXTERNAL),
        ..inline(name)
    }
}

fn weight(name: &str) -> Weight {
    Weight {
        name: name.into(),
        data_type: DataType::Fp32,
        shape: vec![2],
        offset: 0,
        length: 8,
    }
}

fn list(names: &[&str]) -> WeightList {
    WeightList {
        weights: names.iter().map(|name| weight(name)).collect(),
    }
}

fn bytes(graph: GraphProto) -> Vec<u8> {
    let model = ModelProto {
        graph: Some(graph),
        ..ModelProto::default()
    };
    sesemi_onnx::write(&model).unwrap()
}

/// The graph that the list `w` is of, and something else.
fn with_listed(change: impl FnOnce(&mut GraphProto)) -> Vec<u8> {
    let mut graph = GraphProto {
        initializer: vec![external("w", NOWHERE), inline("small")],
        ..GraphProto::default()
    };
    change(&mut graph);
    bytes(graph)
}

fn checked(model: &[u8]) -> Result<Seen, &'static str> {
    check(model, &Outside::Listed(&list(&["w"])))
}

fn node_with(attribute: AttributeProto) -> NodeProto {
    NodeProto {
        op_type: Some("Any".into()),
        attribute: vec![attribute],
        ..NodeProto::default()
    }
}

fn sparse(tensor: TensorProto, as_values: bool) -> SparseTensorProto {
    let (values, indices) = match as_values {
        true => (tensor, inline("i")),
        false => (inline("v"), tensor),
    };
    SparseTensorProto {
        values: Some(values),
        indices: Some(indices),
        dims: vec![8],
    }
}

/// Every attribute that can hold this tensor.
fn attributes(tensor: &TensorProto) -> Vec<AttributeProto> {
    let graph = GraphProto {
        initializer: vec![tensor.clone()],
        ..GraphProto::default()
    };
    let in_sparse = |as_values| sparse(tensor.clone(), as_values);
    let none = AttributeProto::default;
    vec![
        AttributeProto {
            t: Some(Box::new(tensor.clone())),
            ..none()
        },
        AttributeProto {
            tensors: vec![inline("a"), tensor.clone()],
            ..none()
        },
        AttributeProto {
            sparse_tensor: Some(Box::new(in_sparse(true))),
            ..none()
        },
        AttributeProto {
            sparse_tensors: vec![in_sparse(false)],
            ..none()
        },
        AttributeProto {
            g: Some(Box::new(graph.clone())),
            ..none()
        },
        AttributeProto {
            graphs: vec![GraphProto::default(), graph],
            ..none()
        },
    ]
}

#[test]
fn what_is_listed_and_what_is_inside_passes() {
    assert_eq!(checked(&with_listed(|_| ())), Ok(Seen::default()));
    let all = with_listed(|graph| {
        graph.node = attributes(&inline("c"))
            .into_iter()
            .map(node_with)
            .collect();
        graph.sparse_initializer = vec![sparse(inline("s"), true)];
    });
    assert_eq!(checked(&all), Ok(Seen::default()));
    let part = bytes(GraphProto {
        initializer: vec![external("w", WEIGHTS)],
        ..GraphProto::default()
    });
    assert_eq!(check(&part, &Outside::Part), Ok(Seen::default()));
    assert!(check(&part, &Outside::No).is_err());
    assert!(checked(&part).is_err());
    assert!(check(&with_listed(|_| ()), &Outside::Listed(&list(&[]))).is_err());
    assert!(check(&with_listed(|_| ()), &Outside::Listed(&list(&["w", "x"]))).is_err());
    assert!(check(&with_listed(|_| ()), &Outside::Listed(&list(&["w", "w"]))).is_err());
}

#[test]
fn external_data_is_refused_anywhere_but_in_an_initializer_of_the_main_graph() {
    let memory = "*/_ORT_MEM_ADDR_/*";
    for location in [WEIGHTS, NOWHERE, "null", "/etc/hostname", memory] {
        let tensor = external("x", location);
        let mut graphs = vec![];
        for attribute in attributes(&tensor) {
            let node = node_with(attribute);
            graphs.push(GraphProto {
                node: vec![node],
                ..GraphProto::default()
            });
        }
        for as_values in [true, false] {
            graphs.push(GraphProto {
                sparse_initializer: vec![sparse(tensor.clone(), as_values)],
                ..GraphProto::default()
            });
        }
        for graph in graphs {
            let nested = AttributeProto {
                g: Some(Box::new(graph.clone())),
                ..Default::default()
            };
            let function = FunctionProto {
                node: graph.node.clone(),
                ..Default::default()
            };
            let of_function = FunctionProto {
                attribute_proto: vec![nested.clone()],
                ..Default::default()
            };
            let training = TrainingInfoProto {
                algorithm: Some(graph.clone()),
                ..Default::default()
            };
            let mut models = vec![
                ModelProto {
                    graph: Some(graph.clone()),
                    ..Default::default()
                },
                ModelProto {
                    graph: Some(GraphProto {
                        node: vec![node_with(nested)],
                        ..Default::default()
                    }),
                    ..Default::default()
                },
                ModelProto {
                    functions: vec![of_function],
                    ..Default::default()
                },
                ModelProto {
                    training_info: vec![training],
                    ..Default::default()
                },
            ];
            if !graph.node.is_empty() {
                models.push(ModelProto {
                    functions: vec![function],
                    ..Default::default()
                });
            }
            for model in models {
                let model = sesemi_onnx::write(&model).unwrap();
                let listed = list(&[]);
                for outside in [Outside::No, Outside::Part, Outside::Listed(&listed)] {
                    assert!(check(&model, &outside).unwrap_err().contains("other files"));
                }
            }
        }
    }
}

#[test]
fn half_external_data_is_refused() {
    let entry = StringStringEntryProto::new;
    let weight = || external("w", NOWHERE);
    let halves = [
        TensorProto {
            data_location: None,
            ..weight()
        },
        TensorProto {
            data_location: Some(data_location::DEFAULT),
            ..weight()
        },
        TensorProto {
            data_location: Some(2),
            ..weight()
        },
        TensorProto {
            external_data: vec![],
            ..weight()
        },
        TensorProto {
            external_data: vec![entry("offset", "0")],
            ..weight()
        },
        TensorProto {
            external_data: vec![entry("location", "."), entry("location", ".")],
            ..weight()
        },
        TensorProto {
            external_data: vec![entry("location", "."), entry("prepacked_0", "x")],
            ..weight()
        },
        TensorProto {
            raw_data: Some(vec![0; 8].into()),
            ..weight()
        },
        TensorProto {
            float_data: vec![0.0; 2],
            ..weight()
        },
        TensorProto {
            int64_data: vec![0; 2],
            ..weight()
        },
    ];
    for half in halves {
        let model = with_listed(|graph| graph.initializer[0] = half.clone());
        assert!(checked(&model).is_err(), "{half:?}");
    }
}

#[test]
fn a_second_initializer_with_a_listed_name_is_refused_in_any_graph_and_any_order() {
    let refused = |change: &dyn Fn(&mut GraphProto)| {
        let why = checked(&with_listed(change)).unwrap_err();
        assert!(why.contains("list"), "{why}");
    };
    refused(&|it| it.initializer.push(inline("w")));
    refused(&|it| it.initializer.insert(0, inline("w")));
    refused(&|it| it.initializer.push(external("w", NOWHERE)));
    refused(&|it| it.initializer[0] = inline("w"));
    refused(&|it| it.sparse_initializer.push(sparse(inline("w"), true)));
    // A graph in a node, also in one another.
    let graphs: Vec<_> = attributes(&inline("w")).drain(4..).collect();
    for attribute in graphs {
        refused(&|it| it.node.push(node_with(attribute.clone())));
        let graph = GraphProto {
            node: vec![node_with(attribute)],
            ..Default::default()
        };
        let outer = AttributeProto {
            g: Some(Box::new(graph)),
            ..Default::default()
        };
        refused(&|it| it.node.push(node_with(outer.clone())));
    }
    // A constant is an initializer of its output's name; its tensor's own name means nothing.
    let constant = |output: &str| NodeProto {
        output: vec![output.into()],
        ..node_with(attributes(&inline("w")).swap_remove(0))
    };
    refused(&|it| it.node.push(constant("w")));
    assert!(checked(&with_listed(|it| it.node.push(constant("c")))).is_ok());
}

#[test]
fn type_and_shape_are_those_of_the_list_whatever_the_order_of_fields() {
    let is_refused = |change: &dyn Fn(&mut TensorProto)| {
        assert!(checked(&with_listed(|it| change(&mut it.initializer[0]))).is_err());
    };
    is_refused(&|it| it.data_type = Some(data_type::INT32));
    is_refused(&|it| it.data_type = None);
    is_refused(&|it| it.dims = vec![3]);
    is_refused(&|it| it.dims = vec![2, 1]);
    is_refused(&|it| it.dims = vec![]);
    is_refused(&|it| it.dims = vec![2; 9]);
    is_refused(&|it| it.dims = vec![2; 100_000]);
    // Before and after what makes it external, one for one and packed.
    let tensor = {
        use by_hand::*;
        let name = field(8, b"w");
        let place = [
            number(2, 1),
            field(13, &[field(1, b"location"), field(2, b".")].concat()),
            number(14, 1),
        ]
        .concat();
        move |dims: &[u8], first: bool| {
            let parts = if first {
                [dims, &place]
            } else {
                [&place, dims]
            };
            field(7, &field(5, &[name.clone(), parts.concat()].concat()))
        }
    };
    for first in [true, false] {
        assert!(checked(&tensor(&by_hand::number(1, 2), first)).is_ok());
        assert!(checked(&tensor(&by_hand::field(1, &[2]), first)).is_ok());
        let many = by_hand::number(1, 2).repeat(9);
        assert!(checked(&tensor(&many, first)).is_err());
        assert!(checked(&tensor(&by_hand::field(1, &[2; 9]), first)).is_err());
        let both = [by_hand::number(1, 2), by_hand::field(1, &[2; 8])].concat();
        assert!(checked(&tensor(&both, first)).is_err());
    }
}

/// Fields by hand, for what no library writes.
mod by_hand {
    pub(super) fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = vec![];
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    pub(super) fn number(field: u64, value: u64) -> Vec<u8> {
        [varint(field << 3), varint(value)].concat()
    }

    pub(super) fn tagged(tag: &[u8], bytes: &[u8]) -> Vec<u8> {
        [tag, &varint(bytes.len() as u64), bytes].concat()
    }

    pub(super) fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
        tagged(&varint(number << 3 | 2), bytes)
    }
}

#[test]
fn a_tag_that_other_readers_take_for_another_field_is_refused() {
    use by_hand::{field, tagged, varint};
    let graph = field(5, &field(8, b"x"));
    let tag = 7 << 3 | 2;
    let read = |bytes: &[u8]| check(bytes, &Outside::No);
    assert!(read(&tagged(&varint(tag), &graph)).is_ok());
    // Longer than needed, but as every reader takes it.
    assert!(read(&tagged(&[tag as u8 | 0x80, 0x80, 0x80, 0x80, 0], &graph)).is_ok());
    let no_field = field(0, &graph);
    let bad: [&[u8]; 6] = [
        // Above 32 bits, within five bytes and beyond.
        &tagged(&varint(1 << 32 | tag), &graph),
        &tagged(&varint(1 << 60 | tag), &graph),
        // Longer than five bytes.
        &tagged(&[tag as u8 | 0x80, 0x80, 0x80, 0x80, 0x80, 0], &graph),
        &no_field,
        // A group, and its end.
        &[7 << 3 | 3, 7 << 3 | 4],
        &[7 << 3 | 4],
    ];
    for bytes in bad {
        assert!(read(bytes).is_err(), "{bytes:?}");
        // Wherever it is.
        assert!(read(&field(7, bytes)).is_err(), "{bytes:?}");
        assert!(read(&field(7, &field(5, bytes))).is_err(), "{bytes:?}");
    }
    for wire in [6u8, 7] {
        assert!(read(&[7 << 3 | wire, 0]).is_err());
    }
    // A length that other readers take for a negative one.
    assert!(read(&[&[tag as u8][..], &varint(1 << 31)].concat()).is_err());
}

#[test]
fn a_number_of_more_than_64_bits_and_a_length_of_more_than_five_bytes_are_refused() {
    use by_hand::field;
    let read = |bytes: &[u8]| check(bytes, &Outside::No);
    let number = |tenth: u8| [&[0xff; 9][..], &[tenth]].concat();
    // The version, an extent alone, and extents in one field.
    let version = |tenth| [vec![1 << 3], number(tenth)].concat();
    let in_tensor = |bytes: &[u8]| field(7, &field(5, bytes));
    let extent = |tenth| in_tensor(&[vec![1 << 3], number(tenth)].concat());
    let extents = |tenth| in_tensor(&field(1, &number(tenth)));
    for tenth in [0, 1] {
        assert!(read(&version(tenth)).is_ok(), "{tenth}");
        assert!(read(&extent(tenth)).is_ok(), "{tenth}");
        assert!(read(&extents(tenth)).is_ok(), "{tenth}");
    }
    for tenth in [2, 3, 0x7f, 0x80, 0xff] {
        assert!(read(&version(tenth)).is_err(), "{tenth}");
        assert!(read(&extent(tenth)).is_err(), "{tenth}");
        assert!(read(&extents(tenth)).is_err(), "{tenth}");
    }
    // A graph of no bytes.
    let tag = 7 << 3 | 2;
    assert!(read(&[tag, 0x80, 0x80, 0x80, 0x80, 0]).is_ok());
    assert!(read(&[tag, 0x80, 0x80, 0x80, 0x80, 0x80, 0]).is_err());
}

#[test]
fn graphs_in_one_another_are_read_to_a_depth_and_refused_below() {
    use by_hand::field;
    let nested = |graphs: usize| {
        let mut graph = vec![];
        for _ in 0..graphs {
            // Of a node, of an attribute.
            graph = field(1, &field(5, &field(6, &graph)));
        }
        check(&field(7, &graph), &Outside::No)
    };
    assert!(nested(MAX_DEPTH / 3).is_ok());
    assert!(nested(MAX_DEPTH / 3 + 1).unwrap_err().contains("deep"));
    assert!(nested(5_000).unwrap_err().contains("deep"));
}

#[test]
fn nodes_whose_weights_lie_in_blocks_are_seen_in_every_graph() {
    let node = NodeProto {
        domain: Some("com.microsoft.nchwc".into()),
        ..NodeProto::default()
    };
    let graph = GraphProto {
        node: vec![node.clone()],
        ..GraphProto::default()
    };
    let inner = AttributeProto {
        g: Some(Box::new(graph)),
        ..AttributeProto::default()
    };
    let seen = |node: NodeProto| checked(&with_listed(|it| it.node.push(node))).unwrap();
    assert!(seen(node.clone()).blocked);
    assert!(seen(node_with(inner)).blocked);
    let other = NodeProto {
        domain: Some("com.microsoft".into()),
        ..node
    };
    assert!(!seen(other).blocked);
}
