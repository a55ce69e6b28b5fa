//! The nodes of an encoder like ModernBERT: normalised before each part and without biases, positions as
//! rotations, and attention to what is near in most layers.
//!
//! Warner et al., "Smarter, Better, Faster, Longer", 2024; tensors as llama.cpp lays them out.

use shapeyard_core::model::gguf::{EncoderSizes, LocalAttention};

use super::gguf::Writer;
use super::host::HostTensor;
use super::onnx::{Attribute, ValueId};
use super::prepare::{GELU, MASK};
use super::translate::MASKED;

/// What the layers of one reach have in common.
struct Reach {
    mask: ValueId,
    cosines: ValueId,
    /// Negative in the first half, which is multiplied with the second half of a head.
    sines: ValueId,
}

impl Writer<'_> {
    /// One vector a token, of ids and the mask that was given.
    pub(super) fn modern_bert(
        &mut self,
        sizes: &EncoderSizes,
        local: &LocalAttention,
        [ids, given]: [ValueId; 2],
    ) -> ValueId {
        let places = self.checked_places(sizes, ids);
        let mask = self.node(MASK, "mask", &[given], &[]);
        let near = self.window(local, places, mask);
        let everywhere = self.reach("global", sizes, local.global_base, places, mask);
        let nearby = self.reach("local", sizes, local.local_base, places, near);
        let table = self.value("token_embd.weight");
        let words = self.node("Gather", "words", &[table, ids], &[]);
        let mut state = self.scaled_norm("token_embd_norm", sizes.epsilon, words);
        for layer in 0..sizes.n_layers {
            let reach = if local.is_global(layer) { &everywhere } else { &nearby };
            state = self.modern_layer(sizes, layer, state, reach);
        }
        self.scaled_norm("output_norm", sizes.epsilon, state)
    }

    /// 0, 1, 2 … as floats, [sequence, 1]; a text longer than the model knows has none.
    fn checked_places(&mut self, sizes: &EncoderSizes, ids: ValueId) -> ValueId {
        let places = self.places(ids);
        let every: Vec<i64> = (0..sizes.positions as i64).collect();
        let every = self.extents("/every", &every);
        let known = self.node("Gather", "places.known", &[every, places], &[]);
        // 1 is the number of f32 among ONNX's types.
        let float = [("to", Attribute::Int(1))];
        let known = self.node("Cast", "places.float", &[known], &float);
        let last = self.extents("/last", &[1]);
        self.node("Unsqueeze", "places.column", &[known, last], &[])
    }

    /// The mask that also hides what lies further away than half a window, [batch, 1, sequence, sequence].
    ///
    /// It takes memory with the square of the length, and local layers multiply what it hides.
    fn window(&mut self, local: &LocalAttention, places: ValueId, mask: ValueId) -> ValueId {
        let turn = [("perm", Attribute::Ints(vec![1, 0]))];
        let row = self.node("Transpose", "places.row", &[places], &turn);
        let apart = self.node("Sub", "apart", &[places, row], &[]);
        let distance = self.node("Abs", "distance", &[apart], &[]);
        let half = self.float("/half_window", (local.window / 2) as f32);
        let is_far = self.node("Greater", "is_far", &[distance, half], &[]);
        let (hidden, seen) = (self.float("/hidden", MASKED), self.float("/seen", 0.0));
        let far = self.node("Where", "far", &[is_far, hidden, seen], &[]);
        self.node("Add", "mask.near", &[mask, far], &[])
    }

    fn float(&mut self, name: &str, value: f32) -> ValueId {
        self.constant(name, HostTensor::floats(vec![], vec![value]))
    }

    /// Angle `n` of a place is `place · base^(-2n / width)` (Su et al., "RoFormer", 2021); the two halves of
    /// a head make the pairs. Cosines and sines are [sequence, 1, width].
    fn reach(
        &mut self,
        name: &str,
        sizes: &EncoderSizes,
        base: f32,
        places: ValueId,
        mask: ValueId,
    ) -> Reach {
        let width = sizes.hidden / sizes.n_heads;
        let speed = |n: usize| f64::from(base).powf(-2.0 * n as f64 / width as f64) as f32;
        let speeds = HostTensor::floats(vec![width / 2], (0..width / 2).map(speed).collect());
        let speeds = self.constant(&format!("/{name}.speeds"), speeds);
        let angles = self.node("Mul", &format!("{name}.angles"), &[places, speeds], &[]);
        let cosine = self.node("Cos", &format!("{name}.cosine"), &[angles], &[]);
        let sine = self.node("Sin", &format!("{name}.sine"), &[angles], &[]);
        let minus = self.node("Neg", &format!("{name}.minus"), &[sine], &[]);
        let mut both = |part: &str, halves: [ValueId; 2]| {
            let last = [("axis", Attribute::Int(-1))];
            let whole = self.node("Concat", &format!("{name}.{part}.whole"), &halves, &last);
            let heads = self.extents("/heads_axis", &[1]);
            self.node("Unsqueeze", &format!("{name}.{part}"), &[whole, heads], &[])
        };
        Reach {
            mask,
            cosines: both("cosines", [cosine, cosine]),
            sines: both("sines", [minus, sine]),
        }
    }

    fn scaled_norm(&mut self, part: &str, epsilon: f32, from: ValueId) -> ValueId {
        let weight = self.value(&format!("{part}.weight"));
        let epsilon = [("epsilon", Attribute::Float(epsilon))];
        self.node("LayerNormalization", &format!("{part}.out"), &[from, weight], &epsilon)
    }

    fn product(&mut self, part: &str, from: ValueId) -> ValueId {
        let weight = self.value(&format!("{part}.weight"));
        self.node("MatMul", &format!("{part}.product"), &[from, weight], &[])
    }

    /// What lies from `start` to `end` along an axis.
    fn cut(&mut self, name: &str, from: ValueId, axis: i64, [start, end]: [usize; 2]) -> ValueId {
        let bounds = [("start", start as i64), ("end", end as i64), ("axis", axis)];
        let [start, end, axis] =
            bounds.map(|(kind, at)| self.extents(&format!("/{kind}.{at}"), &[at]));
        self.node("Slice", name, &[from, start, end, axis], &[])
    }

    fn modern_layer(
        &mut self,
        sizes: &EncoderSizes,
        layer: usize,
        state: ValueId,
        reach: &Reach,
    ) -> ValueId {
        let part = |part: &str| format!("blk.{layer}.{part}");
        let has_norm = self.has(&part("attn_norm.weight"));
        let normal = if has_norm {
            self.scaled_norm(&part("attn_norm"), sizes.epsilon, state)
        } else {
            state
        };
        let mixed = self.rotated_attention(sizes, &part(""), normal, reach);
        let mixed = self.product(&part("attn_output"), mixed);
        let state = self.node("Add", &part("attn_sum"), &[mixed, state], &[]);
        let normal = self.scaled_norm(&part("ffn_norm"), sizes.epsilon, state);
        let wide = self.product(&part("ffn_up"), normal);
        let width = sizes.intermediate;
        let bent = self.cut(&part("ffn_bent"), wide, 2, [0, width]);
        let bent = self.node(GELU, &part("gelu"), &[bent], &[]);
        let gate = self.cut(&part("ffn_gate"), wide, 2, [width, 2 * width]);
        let gated = self.node("Mul", &part("gated"), &[bent, gate], &[]);
        let narrow = self.product(&part("ffn_down"), gated);
        self.node("Add", &part("ffn_sum"), &[narrow, state], &[])
    }

    fn rotated_attention(
        &mut self,
        sizes: &EncoderSizes,
        layer: &str,
        state: ValueId,
        reach: &Reach,
    ) -> ValueId {
        let (n, width) = (sizes.n_heads, sizes.hidden / sizes.n_heads);
        let name = |part: &str| format!("{layer}{part}");
        let flat = self.product(&name("attn_qkv"), state);
        let split = self.extents("/split", &[0, 0, 3 * n as i64, width as i64]);
        let heads = self.node("Reshape", &name("heads"), &[flat, split], &[]);
        let turning = self.cut(&name("turning"), heads, 2, [0, 2 * n]);
        let turned = self.rotate(sizes, layer, turning, reach);
        let mut ordered = |part: &str, from: ValueId, bounds: [usize; 2], order: [i64; 4]| {
            let heads = self.cut(&name(part), from, 2, bounds);
            let order = [("perm", Attribute::Ints(order.to_vec()))];
            self.node("Transpose", &name(&format!("{part}.heads")), &[heads], &order)
        };
        let query = ordered("query", turned, [0, n], [0, 2, 1, 3]);
        let key = ordered("key", turned, [n, 2 * n], [0, 2, 3, 1]);
        let value = ordered("value", heads, [2 * n, 3 * n], [0, 2, 1, 3]);
        self.mix(sizes, layer, [query, key, value, reach.mask])
    }

    /// Query and key turned by their places, all heads at once.
    fn rotate(
        &mut self,
        sizes: &EncoderSizes,
        layer: &str,
        heads: ValueId,
        reach: &Reach,
    ) -> ValueId {
        let width = sizes.hidden / sizes.n_heads;
        let name = |part: &str| format!("{layer}{part}");
        let first = self.cut(&name("first"), heads, 3, [0, width / 2]);
        let second = self.cut(&name("second"), heads, 3, [width / 2, width]);
        let last = [("axis", Attribute::Int(-1))];
        let swapped = self.node("Concat", &name("swapped"), &[second, first], &last);
        let along = self.node("Mul", &name("along"), &[heads, reach.cosines], &[]);
        let across = self.node("Mul", &name("across"), &[swapped, reach.sines], &[]);
        self.node("Add", &name("turned"), &[along, across], &[])
    }
}
