//! Shapes that tell launch, tokens and lengths apart.

use super::Shape;
use crate::plan::Bucket;

/// A symbol and the largest extent that it is measured with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The symbol; empty where the model has none of that kind.
    pub symbol: String,
    /// The largest extent.
    pub most: usize,
}

impl Extent {
    /// 1, 4, 16 and so on up to the largest; all but the first below `least` are left out.
    fn steps(&self, least: usize) -> Vec<usize> {
        if self.symbol.is_empty() {
            return vec![1];
        }
        let most = self.most.max(1);
        let powers = (0..usize::BITS / 2).map(|bit| 1 << (2 * bit));
        let mut steps: Vec<usize> =
            powers.take_while(|&it| it < most).filter(|&it| it >= least).collect();
        steps.push(most);
        steps
    }
}

/// Batches of rows and lengths in steps of four times, of at most `most_tokens` tokens but for single rows; of each
/// length also as many rows as that allows, because most work runs in such batches.
#[must_use]
pub fn shapes(rows: &Extent, length: &Extent, most_tokens: usize) -> Vec<Shape> {
    const SHORTEST: usize = 16;
    let mut shapes = Vec::new();
    for length_steps in length.steps(SHORTEST.min(length.most)) {
        let full = (most_tokens / length_steps.max(1)).max(1);
        let rows = Extent { most: rows.most.min(full), ..rows.clone() };
        for n_rows in rows.steps(1) {
            let named = [(&rows.symbol, n_rows), (&length.symbol, length_steps)];
            let named = named.into_iter().filter(|(symbol, _)| !symbol.is_empty());
            let bucket: Bucket = named.map(|(symbol, n)| (symbol.clone(), n)).collect();
            shapes.push(Shape { bucket, rows: n_rows, length: length_steps });
        }
    }
    shapes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(symbol: &str, most: usize) -> Extent {
        Extent { symbol: symbol.to_owned(), most }
    }

    fn pairs(shapes: &[Shape]) -> Vec<(usize, usize)> {
        shapes.iter().map(|it| (it.rows, it.length)).collect()
    }

    #[test]
    fn shapes_differ_in_rows_and_in_lengths() {
        let found = shapes(&extent("batch", 16), &extent("sequence", 256), 1024);
        let wanted = [(1, 16), (4, 16), (16, 16), (1, 64), (4, 64), (16, 64), (1, 256), (4, 256)];
        assert_eq!(pairs(&found), wanted);
        let full = shapes(&extent("batch", 64), &extent("sequence", 96), 1000);
        let of = |length| full.iter().filter(|it| it.length == length).map(|it| it.rows).collect();
        let rows: [Vec<usize>; 3] = [16, 64, 96].map(of);
        assert_eq!(rows, [vec![1, 4, 16, 62], vec![1, 4, 15], vec![1, 4, 10]]);
        assert_eq!(found[4].bucket.to_string(), "batch=4,sequence=64");
    }

    #[test]
    fn a_model_without_a_symbol_has_one_extent() {
        assert_eq!(pairs(&shapes(&extent("batch", 8), &extent("", 9), 4)), [(1, 1), (4, 1)]);
        assert_eq!(pairs(&shapes(&extent("", 8), &extent("", 9), 4)), [(1, 1)]);
        assert_eq!(pairs(&shapes(&extent("", 8), &extent("sequence", 3), 1)), [(1, 3)]);
    }
}
