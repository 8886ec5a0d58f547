//! Layers that put a network together: each adds its nodes and weights to the graph and says what its output is like.

use std::mem::take;

use sesemi_onnx::messages::{
    AttributeProto, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, ValueInfoProto,
};

use crate::draws::Draws;
use crate::moments::Moments;

/// Side of an image, in pixels.
const SIDE: usize = 224;
/// How many classes there are.
const CLASSES: usize = 1000;
/// The deviation of scores over classes.
const LOGIT_DEVIATION: f64 = 2.0;

/// A value of the graph: `[N, channels, side, side]`.
#[derive(Clone)]
pub(crate) struct Signal {
    name: String,
    channels: Vec<Moments>,
    side: usize,
}

impl Signal {
    pub(crate) fn channels(&self) -> usize {
        self.channels.len()
    }
}

/// A convolution without a bias: a batch norm follows or precedes each.
#[derive(Clone, Copy)]
pub(crate) struct Convolution {
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    /// Zeros before the first row and column, and after the last.
    pub(crate) pads: (usize, usize),
}

impl Convolution {
    /// One by one.
    pub(crate) const POINT: Self = Self {
        kernel: 1,
        stride: 1,
        pads: (0, 0),
    };
    /// Three by three; the side stays.
    pub(crate) const THREE: Self = Self {
        kernel: 3,
        stride: 1,
        pads: (1, 1),
    };
    /// Seven by seven, the first layer of ResNet and DenseNet; halves the side.
    pub(crate) const SEVEN: Self = Self {
        kernel: 7,
        stride: 2,
        pads: (3, 3),
    };

    fn side(self, side: usize) -> usize {
        (side + self.pads.0 + self.pads.1 - self.kernel) / self.stride + 1
    }

    /// Which part of the inputs are no padding, over all places.
    fn inside(self, side: usize) -> f64 {
        let places = self.side(side);
        let along_one_side: usize = (0..places)
            .map(|place| {
                let first = place * self.stride;
                (first..first + self.kernel)
                    .filter(|at| (self.pads.0..self.pads.0 + side).contains(at))
                    .count()
            })
            .sum();
        let part = along_one_side as f64 / (places * self.kernel) as f64;
        part * part
    }

    fn attributes(self, group: usize) -> Vec<AttributeProto> {
        let [kernel, stride, before, after] =
            [self.kernel, self.stride, self.pads.0, self.pads.1].map(|it| it as i64);
        vec![
            AttributeProto::int("group", group as i64),
            AttributeProto::ints("kernel_shape", &[kernel; 2]),
            AttributeProto::ints("pads", &[before, before, after, after]),
            AttributeProto::ints("strides", &[stride; 2]),
        ]
    }
}

/// A network that is being put together.
pub(crate) struct Layers {
    network: &'static str,
    /// What a batch norm adds to a variance.
    epsilon: f32,
    graph: GraphProto,
}

impl Layers {
    /// An empty network, and its input.
    pub(crate) fn new(network: &'static str, epsilon: f32) -> (Self, Signal) {
        let graph = GraphProto {
            name: Some(network.into()),
            input: vec![ValueInfoProto::floats("image", shape(&[3, SIDE, SIDE]))],
            ..GraphProto::default()
        };
        let image = Signal {
            name: "image".into(),
            channels: vec![Moments::STANDARD; 3],
            side: SIDE,
        };
        let layers = Self {
            network,
            epsilon,
            graph,
        };
        (layers, image)
    }

    /// A convolution to `outputs` channels.
    pub(crate) fn convolution(
        &mut self,
        name: &str,
        input: &Signal,
        outputs: usize,
        kind: Convolution,
    ) -> Signal {
        let every: Vec<_> = (0..input.channels()).collect();
        self.convolve(name, input, &vec![&every[..]; outputs], kind)
    }

    /// A convolution of each channel for itself.
    pub(crate) fn depthwise(&mut self, name: &str, input: &Signal, kind: Convolution) -> Signal {
        let every: Vec<_> = (0..input.channels()).collect();
        let own: Vec<_> = every.chunks(1).collect();
        self.convolve(name, input, &own, kind)
    }

    /// A convolution, each output of the inputs that are listed for it.
    fn convolve(
        &mut self,
        name: &str,
        input: &Signal,
        sources: &[&[usize]],
        kind: Convolution,
    ) -> Signal {
        let weights = format!("{name}/weights");
        let mut draws = Draws::of(self.network, &weights);
        let area = kind.kernel * kind.kernel;
        let fan_in = sources[0].len();
        // He et al., arXiv:1502.01852.
        let deviation = (2.0 / (fan_in * area) as f64).sqrt();
        let inside = kind.inside(input.side);
        let mut values = Vec::with_capacity(sources.len() * fan_in * area);
        let mut channels = Vec::with_capacity(sources.len());
        for sources in sources {
            let mut power = 0.0;
            for source in *sources {
                let mut squares = 0.0;
                for _ in 0..area {
                    let weight = (draws.bell() * deviation) as f32;
                    squares += f64::from(weight) * f64::from(weight);
                    values.push(weight);
                }
                power += input.channels[*source].power() * squares * inside;
            }
            channels.push(Moments {
                mean: 0.0,
                variance: power,
            });
        }
        let dims = [sources.len(), fan_in, kind.kernel, kind.kernel];
        let group = input.channels() / fan_in;
        self.tensor(&weights, &dims, &values);
        self.node(
            "Conv",
            name,
            &[&input.name, &weights],
            kind.attributes(group),
        );
        Signal {
            name: name.into(),
            channels,
            side: kind.side(input.side),
        }
    }

    /// A batch norm whose statistics are about those of its input.
    pub(crate) fn batch_norm(&mut self, name: &str, input: &Signal) -> Signal {
        let [gamma, beta, mean, variance] =
            ["gamma", "beta", "moving_mean", "moving_variance"].map(|it| format!("{name}/{it}"));
        let drawn = |tensor: &str, center: f64| -> Vec<f32> {
            let mut draws = Draws::of(self.network, tensor);
            let values = (0..input.channels()).map(|_| (center + 0.1 * draws.bell()) as f32);
            values.collect()
        };
        let (gammas, betas) = (drawn(&gamma, 1.0), drawn(&beta, 0.0));
        let offsets = drawn(&mean, 0.0).into_iter();
        let variances: Vec<_> = input.channels.iter().map(|it| it.variance as f32).collect();
        let means: Vec<_> = (offsets.zip(&input.channels))
            .map(|(offset, it)| (it.mean + f64::from(offset) * it.variance.sqrt()) as f32)
            .collect();
        let dims = [input.channels()];
        self.tensor(&gamma, &dims, &gammas);
        self.tensor(&beta, &dims, &betas);
        self.tensor(&mean, &dims, &means);
        self.tensor(&variance, &dims, &variances);
        let epsilon = AttributeProto::float("epsilon", self.epsilon);
        let inputs = [&input.name, &gamma, &beta, &mean, &variance].map(String::as_str);
        self.node("BatchNormalization", name, &inputs, vec![epsilon]);
        let channels = (0..input.channels()).map(|at| {
            let [gamma, beta, mean, variance] =
                [&gammas, &betas, &means, &variances].map(|it| f64::from(it[at]));
            Moments {
                mean: beta + gamma * (input.channels[at].mean - mean) / variance.sqrt(),
                variance: gamma * gamma,
            }
        });
        Signal {
            name: name.into(),
            channels: channels.collect(),
            ..*input
        }
    }

    /// What is above 0.
    pub(crate) fn relu(&mut self, name: &str, input: &Signal) -> Signal {
        self.node("Relu", name, &[&input.name], vec![]);
        input.renamed(name).each(Moments::rectified)
    }

    /// What is above 0, and no more than 6. So little is above 6 that the moments are those of [`Self::relu`].
    pub(crate) fn relu6(&mut self, name: &str, input: &Signal) -> Signal {
        if self
            .graph
            .initializer
            .iter()
            .all(|it| it.name() != "relu6/max")
        {
            self.tensor("relu6/min", &[], &[0.0]);
            self.tensor("relu6/max", &[], &[6.0]);
        }
        self.node(
            "Clip",
            name,
            &[&input.name, "relu6/min", "relu6/max"],
            vec![],
        );
        input.renamed(name).each(Moments::rectified)
    }

    /// A [`Self::relu`], and of it the greatest of three by three places; halves the side.
    pub(crate) fn relu_and_max_pool(&mut self, relu: &str, pool: &str, input: &Signal) -> Signal {
        self.relu(relu, input);
        let attributes = vec![
            AttributeProto::ints("kernel_shape", &[3; 2]),
            AttributeProto::ints("pads", &[1; 4]),
            AttributeProto::ints("strides", &[2; 2]),
        ];
        self.node("MaxPool", pool, &[relu], attributes);
        // The greatest of what is rectified is what is rectified of the greatest, and only before it is it normal.
        let output = input.renamed(pool).each(Moments::greatest_of_nine);
        Signal {
            side: input.side.div_ceil(2),
            ..output.each(Moments::rectified)
        }
    }

    /// The mean of two by two places; halves the side. Most of what a channel has is in neighbouring places too, so its moments
    /// are taken to stay.
    pub(crate) fn average_pool(&mut self, name: &str, input: &Signal) -> Signal {
        let attributes = vec![
            AttributeProto::ints("kernel_shape", &[2; 2]),
            AttributeProto::ints("strides", &[2; 2]),
        ];
        self.node("AveragePool", name, &[&input.name], attributes);
        Signal {
            side: input.side / 2,
            ..input.renamed(name)
        }
    }

    /// The sum of two values, then [`Self::relu`].
    pub(crate) fn add_and_relu(&mut self, add: &str, relu: &str, inputs: [&Signal; 2]) -> Signal {
        let [left, right] = inputs;
        self.node("Add", add, &[&left.name, &right.name], vec![]);
        let both = left.channels.iter().zip(&right.channels);
        let sum = Signal {
            name: add.into(),
            channels: both.map(|(left, right)| left.plus(*right)).collect(),
            side: left.side,
        };
        self.relu(relu, &sum)
    }

    /// The channels of one value after those of another.
    pub(crate) fn concatenate(&mut self, name: &str, inputs: [&Signal; 2]) -> Signal {
        let [left, right] = inputs;
        let axis = AttributeProto::int("axis", 1);
        self.node("Concat", name, &[&left.name, &right.name], vec![axis]);
        Signal {
            name: name.into(),
            channels: [&left.channels[..], &right.channels[..]].concat(),
            side: left.side,
        }
    }

    /// The mean of every channel, a score for every class from them, and with that the whole model.
    pub(crate) fn classify(mut self, input: &Signal) -> ModelProto {
        self.node("GlobalAveragePool", "pool", &[&input.name], vec![]);
        self.node(
            "Flatten",
            "features",
            &["pool"],
            vec![AttributeProto::int("axis", 1)],
        );
        // Of no less variance than before, as most of what a channel has is in all its places.
        let features = input.renamed("features");
        let variance: f64 = features.channels.iter().map(|it| it.variance).sum();
        let deviation = LOGIT_DEVIATION / variance.sqrt();

        let [weights, biases] = ["classifier/weights", "classifier/biases"];
        let mut draws = Draws::of(self.network, weights);
        let mut values = Vec::with_capacity(CLASSES * features.channels());
        let mut centers = Vec::with_capacity(CLASSES);
        for _ in 0..CLASSES {
            let mut mean = 0.0;
            for feature in &features.channels {
                let weight = (draws.bell() * deviation) as f32;
                mean += f64::from(weight) * feature.mean;
                values.push(weight);
            }
            centers.push(-mean as f32);
        }
        self.tensor(weights, &[CLASSES, features.channels()], &values);
        self.tensor(biases, &[CLASSES], &centers);
        let transposed = AttributeProto::int("transB", 1);
        self.node(
            "Gemm",
            "logits",
            &["features", weights, biases],
            vec![transposed],
        );
        self.graph.output = vec![ValueInfoProto::floats("logits", shape(&[CLASSES]))];
        ModelProto {
            ir_version: Some(8),
            opset_import: vec![OperatorSetIdProto {
                domain: Some(String::new()),
                version: Some(17),
            }],
            producer_name: Some("sesemi-paper-models".into()),
            graph: Some(take(&mut self.graph)),
            ..ModelProto::default()
        }
    }

    /// A node with one output, which has its name.
    fn node(
        &mut self,
        operator: &str,
        name: &str,
        inputs: &[&str],
        attribute: Vec<AttributeProto>,
    ) {
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![name.into()],
            name: Some(name.into()),
            op_type: Some(operator.into()),
            attribute,
            ..NodeProto::default()
        });
    }

    fn tensor(&mut self, name: &str, dims: &[usize], values: &[f32]) {
        let dims: Vec<_> = dims.iter().map(|it| *it as i64).collect();
        let tensor = TensorProto::floats(name, &dims, values);
        self.graph.initializer.push(tensor);
    }
}

impl Signal {
    fn renamed(&self, name: &str) -> Self {
        Self {
            name: name.into(),
            channels: self.channels.clone(),
            side: self.side,
        }
    }

    fn each(mut self, change: impl Fn(Moments) -> Moments) -> Self {
        self.channels.iter_mut().for_each(|it| *it = change(*it));
        self
    }
}

/// A shape whose batch is open.
fn shape(dims: &[usize]) -> Vec<DimensionValue> {
    let dims = dims.iter().map(|it| DimensionValue::DimValue(*it as i64));
    [DimensionValue::DimParam("N".into())]
        .into_iter()
        .chain(dims)
        .collect()
}
