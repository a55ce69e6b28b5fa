//! Text cut into so many lines.

use super::Span;

/// Pieces of `n_lines` lines, the last with what is left; together they are the text.
pub(super) fn chunks(text: &str, n_lines: usize) -> impl Iterator<Item = (Span, &str)> {
    let mut rest = text;
    let mut n_before = 0;
    std::iter::from_fn(move || {
        let (end, n_taken) = measure(rest, n_lines);
        if n_taken == 0 {
            return None;
        }
        let (piece, after) = rest.split_at(end);
        let span = Span::Lines { first: n_before + 1, last: n_before + n_taken };
        rest = after;
        n_before += n_taken;
        Some((span, piece))
    })
}

/// Where the first lines end, and how many there are, at most `n_lines`.
fn measure(text: &str, n_lines: usize) -> (usize, usize) {
    text.split_inclusive('\n')
        .take(n_lines)
        .fold((0, 0), |(end, n_taken), line| (end + line.len(), n_taken + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spans_name_first_and_last_line() {
        let pieces: Vec<_> = chunks("a\nb\nc\nd\ne", 2).collect();
        let lines = |first, last| Span::Lines { first, last };
        assert_eq!(pieces, [(lines(1, 2), "a\nb\n"), (lines(3, 4), "c\nd\n"), (lines(5, 5), "e")]);
        assert_eq!(chunks("", 2).count(), 0);
    }

    proptest! {
        #[test]
        fn pieces_together_are_the_text(text in "[ab\r\n]{0,60}", n_lines in 1usize..9) {
            let whole: String = chunks(&text, n_lines).map(|(_, piece)| piece).collect();
            prop_assert_eq!(&whole, &text);
            let mut next = 1;
            for (span, piece) in chunks(&text, n_lines) {
                let Span::Lines { first, last } = span else { panic!("{span:?}") };
                prop_assert_eq!(first, next);
                prop_assert_eq!(last + 1 - first, piece.split_inclusive('\n').count());
                prop_assert!(last < first + n_lines);
                next = last + 1;
            }
            prop_assert_eq!(next - 1, text.split_inclusive('\n').count());
        }
    }
}
