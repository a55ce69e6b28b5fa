//! What networks are made of, as kernels of ours where the processor computes and of ggml's operators elsewhere.

use ggml_sys::ggml_type;

use super::builder::{Binary, Builder, Unary};
use super::context::{Made, Refusal, Tensor};
use super::custom::Kernel;
use super::kernels::product::Product;

/// How the weights of a matrix lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One row an output, as ggml multiplies with them.
    Rows,
    /// As our own product does.
    Panels,
}

/// A matrix of weights.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    pub(crate) tensor: Tensor,
    pub(crate) layout: Layout,
    pub(crate) n_inputs: usize,
    pub(crate) n_outputs: usize,
}

/// What a layer does besides the product.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Besides<'a> {
    /// Added to every row.
    pub(crate) bias: Option<&'a Tensor>,
    /// Whether the GELU is taken then.
    pub(crate) gelu: bool,
    /// Added at the end.
    pub(crate) added: Option<&'a Tensor>,
}

fn is_float_list(tensor: &Tensor, n: usize) -> bool {
    *tensor.shape == [n] && tensor.dtype == ggml_type::F32
}

impl Builder<'_> {
    /// Whether kernels of ours are computed.
    fn has_ours(&self) -> bool {
        self.context.engine().is_processor()
    }

    /// Rows `x`, [n, inputs], through a layer: [n, outputs].
    pub(crate) fn linear(&self, x: &Tensor, matrix: &Matrix, besides: Besides<'_>) -> Made {
        match matrix.layout {
            Layout::Panels => self.through_panels(x, matrix, besides),
            Layout::Rows => self.through_rows(x, matrix, besides),
        }
    }

    fn through_panels(&self, x: &Tensor, matrix: &Matrix, besides: Besides<'_>) -> Made {
        let &Matrix { n_inputs, n_outputs, .. } = matrix;
        let x = self.whole_rows(x)?;
        let &[n_rows, width] = &*x.shape else {
            return Err(Refusal::Never("rows are multiplied, [n, inputs]".to_owned()));
        };
        let Besides { bias, gelu, added } = besides;
        let shape = [n_rows, n_outputs];
        let fits = bias.is_none_or(|bias| is_float_list(bias, n_outputs))
            && added.is_none_or(|added| {
                *added.shape == shape && added.is_contiguous() && added.dtype == ggml_type::F32
            });
        if width != n_inputs || x.dtype != ggml_type::F32 || !fits {
            return Err(Refusal::Here(format!(
                "{:?} does not fit a layer from {n_inputs} to {n_outputs}",
                x.shape
            )));
        }
        let product = Product { n_inputs, n_outputs, step: x.strides[0], gelu };
        let kernel = Kernel::Product { product, has_bias: bias.is_some(), adds: added.is_some() };
        let mut sources = vec![&x, &matrix.tensor];
        sources.extend(bias);
        sources.extend(added);
        self.custom(kernel, &sources, &shape, n_outputs)
    }

    fn through_rows(&self, x: &Tensor, matrix: &Matrix, besides: Besides<'_>) -> Made {
        let mut made = self.matmul_transposed(x, &matrix.tensor)?;
        if let Some(bias) = besides.bias {
            made = self.binary(Binary::Add, &made, bias)?;
        }
        if besides.gelu {
            made = self.gelu(&made)?;
        }
        match besides.added {
            Some(added) => self.binary(Binary::Add, &made, added),
            None => Ok(made),
        }
    }

    /// The GELU with the error function.
    pub(crate) fn gelu(&self, a: &Tensor) -> Made {
        if !self.has_ours() || a.dtype != ggml_type::F32 {
            return self.unary(Unary::GeluErf, a);
        }
        let a = self.contiguous(a)?;
        let row = a.shape.last().copied().unwrap_or(1);
        self.custom(Kernel::Gelu, &[&a], &a.shape, row)
    }

    /// `gelu(a) · b` of rows that hold `a` and then `b`, [n, 2 · width].
    pub(crate) fn gated_gelu(&self, a: &Tensor) -> Made {
        match &*a.shape {
            &[n, width] if self.has_ours() && width.is_multiple_of(2) => {
                let a = self.contiguous(a)?;
                self.custom(Kernel::GatedGelu, &[&a], &[n, width / 2], width / 2)
            }
            _ => self.geglu(a),
        }
    }

    /// Along the last axis less the mean, over the deviation, times a weight and with a bias.
    pub(crate) fn layer_norm(
        &self,
        a: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        epsilon: f32,
    ) -> Made {
        let width = a.shape.last().copied().unwrap_or(1);
        let fits = is_float_list(weight, width)
            && bias.is_none_or(|bias| is_float_list(bias, width))
            && a.dtype == ggml_type::F32
            && epsilon >= 0.0;
        if self.has_ours() && fits {
            let a = self.contiguous(a)?;
            let mut sources = vec![&a, weight];
            sources.extend(bias);
            return self.custom(Kernel::LayerNorm { epsilon }, &sources, &a.shape, width);
        }
        let normal = self.norm(a, epsilon)?;
        let scaled = self.binary(Binary::Mul, &normal, weight)?;
        match bias {
            Some(bias) => self.binary(Binary::Add, &scaled, bias),
            None => Ok(scaled),
        }
    }
}
