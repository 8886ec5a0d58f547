//! Tensors in plain, on their way through the enclave.

use sesemi_process::wipe;
use sesemi_protocol::tensor::Tensor;

/// Tensors that nobody outside may see; wiped on drop.
pub(super) struct Plain(pub(super) Vec<Tensor>);

impl Drop for Plain {
    fn drop(&mut self) {
        for tensor in &mut self.0 {
            wipe(&mut tensor.data);
        }
    }
}
