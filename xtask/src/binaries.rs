//! The programs that SeSeMI consists of.

/// A program of the product.
pub(crate) struct Binary {
    /// The cargo package that makes it.
    pub(crate) package: &'static str,
    /// The name of the program.
    pub(crate) name: &'static str,
    /// Whether it runs inside a TEE, so that all that is linked into it is trusted.
    pub(crate) in_tee: bool,
    /// Whether it maps a shared library, which a static program cannot. The library is measured with it, by whoever starts it.
    pub(crate) maps_library: bool,
}

const fn binary(package: &'static str, name: &'static str, in_tee: bool) -> Binary {
    Binary {
        package,
        name,
        in_tee,
        maps_library: false,
    }
}

/// Every program that `cargo xtask build` makes.
pub(crate) const BINARIES: [Binary; 7] = [
    binary("sesemi-keyservice", "sesemi-keyservice", true),
    binary("sesemi-semirt", "sesemi-semirt", true),
    Binary {
        maps_library: true,
        ..binary("sesemi-onnxruntime", "sesemi-semirt-onnxruntime", true)
    },
    binary("sesemi-simtee", "simtee", false),
    binary("sesemi-fnpacker", "sesemi-fnpacker", false),
    binary("sesemi-cli", "sesemi", false),
    // What `sesemi model compile` starts: it maps ONNX Runtime, which the static `sesemi` cannot.
    Binary {
        maps_library: true,
        ..binary("sesemi-compile", "sesemi-compile", false)
    },
];

/// The program that measures. It is a tool: not built with the others, not part of the product.
pub(crate) const BENCH: Binary = binary("sesemi-bench", "sesemi-bench", false);

/// The same with every engine in it, some of which map a library.
pub(crate) const BENCH_WITH_ENGINES: Binary = Binary {
    maps_library: true,
    ..BENCH
};

/// The program that kills KeyService: a tool like it.
pub(crate) const CRASH: Binary = binary("sesemi-crash", "sesemi-crash", false);

/// The program that tries real models: a tool as well, which maps ONNX Runtime to compare with it.
pub(crate) const CONFORMANCE: Binary = Binary {
    maps_library: true,
    ..binary("sesemi-conformance", "sesemi-conformance", false)
};

/// The service that holds everybody's keys.
pub(crate) const KEYSERVICE: &str = "sesemi-keyservice";

/// The simulated TEE.
pub(crate) const SIMTEE: &str = "simtee";

/// The program that people run.
pub(crate) const SESEMI: &str = "sesemi";

/// A program of the product by its name.
pub(crate) fn named(name: &str) -> Option<&'static Binary> {
    BINARIES.iter().find(|binary| binary.name == name)
}

/// Those that run inside a TEE.
pub(crate) fn in_tee() -> impl Iterator<Item = &'static Binary> {
    BINARIES.iter().filter(|binary| binary.in_tee)
}
