//! Tensors in plain, on their way through the enclave.

use sesemi_process::wipe;
use sesemi_protocol::tensor::Tensor;

/// Tensors that nobody outside may see; wiped on drop.
pub struct Plain(pub Vec<Tensor>);

impl core::fmt::Debug for Plain {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Plain").field(&self.0.len()).finish()
    }
}

impl Plain {
    /// The tensors, for whoever wipes them from then on.
    #[must_use]
    pub fn into_inner(mut self) -> Vec<Tensor> {
        core::mem::take(&mut self.0)
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        for tensor in &mut self.0 {
            wipe(&mut tensor.data);
        }
    }
}
