//! The texts of a request, as an encoder's graph takes them.
//!
//! A request is a rectangle of tokens with a mask. What the mask hides is not computed: the tokens that it
//! shows lie one after the other, each with its place in its text, and texts look only at themselves. Vectors
//! of hidden tokens are zeros.

use shapeyard_core::TensorView;

use crate::ggml::inputs::integers;

/// The shape of an encoder's graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// So many tokens, whatever the texts' lengths: for the processor, on which texts look at themselves by a
    /// kernel of ours.
    Packed { n_tokens: usize },
    /// The request's own, hidden tokens computed too: for devices that have ggml's operators alone.
    Rectangle { batch: usize, length: usize },
}

impl Form {
    /// Rows of the graph.
    pub(crate) const fn n_rows(self) -> usize {
        match self {
            Self::Packed { n_tokens } => n_tokens,
            Self::Rectangle { batch, length } => batch * length,
        }
    }
}

/// How many tokens and places a model knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) vocabulary: usize,
    pub(crate) positions: usize,
}

/// Tokens that lie side by side in the graph and in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The first one's row in the graph.
    pub(crate) from: usize,
    /// The first one's row in the answer.
    pub(crate) to: usize,
    pub(crate) n: usize,
}

/// What a graph is filled with; its memory is kept from request to request.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    pub(crate) tokens: Vec<i32>,
    pub(crate) places: Vec<i32>,
    /// Of packed tokens, where the text of each begins and ends.
    pub(crate) spans: Vec<[i32; 2]>,
    /// Of a rectangle, which tokens are shown.
    pub(crate) shown: Vec<bool>,
    pub(crate) runs: Vec<Run>,
    /// Rows of the answer.
    pub(crate) n_rows: usize,
}

impl Texts {
    /// Reads a request's ids and mask; answers the graph that computes it.
    pub(crate) fn read(
        &mut self,
        [ids, mask]: [&TensorView<'_>; 2],
        packs: bool,
        limits: Limits,
    ) -> Result<Form, String> {
        let &[batch, length] = ids.shape() else {
            return Err("its ids have not two axes".to_owned());
        };
        if mask.shape() != ids.shape() {
            return Err("its mask has another shape than its ids".to_owned());
        }
        let Self { tokens, places, spans, shown, runs, .. } = self;
        tokens.clear();
        places.clear();
        spans.clear();
        shown.clear();
        runs.clear();
        self.n_rows = batch * length;
        let mut text_start = 0;
        for (at, (id, mask)) in integers(ids)?.zip(integers(mask)?).enumerate() {
            let place = at % length;
            if place == 0 {
                text_start = tokens.len();
            }
            let is_shown = mask != 0;
            if is_shown {
                let token = limits.token(id)?;
                let row = if packs { tokens.len() } else { at };
                match runs.last_mut() {
                    Some(run) if run.from + run.n == row && run.to + run.n == at => run.n += 1,
                    _ => runs.push(Run { from: row, to: at, n: 1 }),
                }
                tokens.push(token);
                places.push(limits.place(place)?);
            } else if !packs {
                // Whatever stands there: nobody looks at it.
                tokens.push(0);
                places.push(0);
            }
            if !packs {
                shown.push(is_shown);
            } else if place + 1 == length {
                let span =
                    [text_start, tokens.len()].map(|it| i32::try_from(it).unwrap_or(i32::MAX));
                spans.resize(tokens.len(), span);
            }
        }
        Ok(match packs {
            true => Form::Packed { n_tokens: tokens.len() },
            false => Form::Rectangle { batch, length },
        })
    }

    /// Puts rows of the graph, `width` numbers each, where they belong, and zeros where a token is hidden.
    pub(crate) fn spread(
        &self,
        to: &mut [f32],
        width: usize,
        mut read: impl FnMut(usize, &mut [f32]) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut done = 0;
        for &Run { from, to: row, n } in &self.runs {
            let (start, end) = (row * width, (row + n) * width);
            to[done..start].fill(0.0);
            read(from * width, &mut to[start..end])?;
            done = end;
        }
        to[done..].fill(0.0);
        Ok(())
    }
}

impl Limits {
    /// The library ends the process over rows that a table lacks.
    fn token(self, id: i64) -> Result<i32, String> {
        let is_known = usize::try_from(id).is_ok_and(|id| id < self.vocabulary);
        match i32::try_from(id) {
            Ok(id) if is_known => Ok(id),
            _ => Err(format!("token {id} is none of the model's {}", self.vocabulary)),
        }
    }

    fn place(self, place: usize) -> Result<i32, String> {
        match i32::try_from(place) {
            Ok(place_number) if place < self.positions => Ok(place_number),
            _ => Err(format!(
                "a text has more than the {} tokens that the model takes",
                self.positions
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use shapeyard_core::Tensor;

    use super::*;

    const LIMITS: Limits = Limits { vocabulary: 50, positions: 4 };

    fn read(
        ids: &[i64],
        mask: &[i64],
        length: usize,
        packs: bool,
    ) -> Result<(Texts, Form), String> {
        let shape = [ids.len() / length, length];
        let [ids, mask] = [ids, mask].map(|values| Tensor::from_slice(&shape, values).unwrap());
        let mut texts = Texts::default();
        let form = texts.read([&ids.view(), &mask.view()], packs, LIMITS)?;
        Ok((texts, form))
    }

    fn spread(texts: &Texts) -> Vec<f32> {
        let mut to = vec![f32::NAN; texts.n_rows];
        let read = |from: usize, to: &mut [f32]| {
            let rows = to.iter_mut().enumerate();
            rows.for_each(|(nth, to)| *to = (texts.tokens[from + nth]) as f32);
            Ok(())
        };
        texts.spread(&mut to, 1, read).unwrap();
        to
    }

    #[test]
    fn what_is_hidden_is_left_out_and_its_rows_are_zeros() {
        // A hole, padding after and before, and a text of which nothing is shown.
        let ids = [10, 11, 12, 13, 20, 21, -9, 99, 30, 31, 32, 33, 40, 41, 42, 43];
        let mask = [1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1];
        let wanted = [10., 0., 12., 13., 20., 21., 0., 0., 0., 0., 0., 0., 0., 41., 42., 43.];
        let (texts, form) = read(&ids, &mask, 4, true).unwrap();
        assert_eq!(form, Form::Packed { n_tokens: 8 });
        assert_eq!(texts.tokens, [10, 12, 13, 20, 21, 41, 42, 43]);
        assert_eq!(texts.places, [0, 2, 3, 0, 1, 1, 2, 3]);
        let spans = [[0, 3]; 3].into_iter().chain([[3, 5]; 2]).chain([[5, 8]; 3]);
        assert!(texts.spans.iter().copied().eq(spans));
        assert_eq!(spread(&texts), wanted);
        let (texts, form) = read(&ids, &mask, 4, false).unwrap();
        assert_eq!(form, Form::Rectangle { batch: 4, length: 4 });
        assert_eq!(texts.tokens.len(), 16);
        assert_eq!(texts.shown, mask.map(|mask| mask != 0));
        assert_eq!(spread(&texts), wanted);
    }

    #[test]
    fn texts_without_padding_are_one_run() {
        let (texts, _) = read(&[1; 12], &[1; 12], 4, true).unwrap();
        assert_eq!(texts.runs, [Run { from: 0, to: 0, n: 12 }]);
    }

    #[test]
    fn tokens_and_places_that_the_model_lacks_are_refused() {
        for packs in [true, false] {
            read(&[50], &[1], 1, packs).unwrap_err();
            read(&[-1], &[1], 1, packs).unwrap_err();
            read(&[i64::MAX], &[1], 1, packs).unwrap_err();
            read(&[1; 5], &[1, 1, 1, 1, 1], 5, packs).unwrap_err();
            read(&[1, 1, 1, 1, 77], &[1, 1, 1, 1, 0], 5, packs).unwrap();
        }
    }
}
