//! Drawing as SVG: what every plot of the project is made of.

use std::fmt::Write as _;

/// How wide plots are, in pixels.
pub const WIDTH: f64 = 960.0;

/// Text and lines that carry what is said.
pub const INK: &str = "#222222";
/// What is ours, or served.
pub const OURS: &str = "#2f6f9f";
/// The neighbour of [`OURS`], where two parts have to be told apart.
pub const OURS_TOO: &str = "#86aed6";
/// What is another's, or not served.
pub const OTHER: &str = "#c2c8cf";
/// A limit.
pub const LIMIT: &str = "#8aa88a";
/// A mark that stands out.
pub const MARK: &str = "#a33d22";
/// Lines that only guide the eye.
pub const GRID: &str = "#e4e4e4";

/// Where a text lies beside its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Behind it.
    Start,
    /// Around it.
    Middle,
    /// Before it.
    End,
}

impl Anchor {
    const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// A drawing. Places are in pixels from the upper left.
#[derive(Clone, Debug)]
pub struct Svg {
    text: String,
}

impl Svg {
    /// An empty white drawing; the title is what is read out and shown beside the pointer.
    #[must_use]
    pub fn new(height: f64, title: &str) -> Self {
        let mut svg = Self { text: String::new() };
        svg.line(format_args!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12" fill="{INK}">"##
        ));
        svg.line(format_args!("<title>{}</title>", escaped(title)));
        svg.line(format_args!(r##"<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>"##));
        svg
    }

    /// Writing to a string does not fail.
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.text, "{line}");
    }

    /// The drawing's heading.
    pub fn heading(&mut self, x: f64, y: f64, text: &str) {
        self.line(format_args!(
            r##"<text x="{x}" y="{y}" font-size="14">{}</text>"##,
            escaped(text)
        ));
    }

    /// A text, on a white ground where lines pass behind it.
    pub fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, colour: &str, text: &str) {
        let (anchor, text) = (anchor.name(), escaped(text));
        self.line(format_args!(
            r##"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{colour}" stroke="#ffffff" stroke-width="4" paint-order="stroke">{text}</text>"##
        ));
    }

    /// A text that is read from below to above, around its place.
    pub fn text_upwards(&mut self, (x, y): (f64, f64), text: &str) {
        let text = escaped(text);
        self.line(format_args!(
            r##"<text x="{x:.1}" y="{y:.1}" text-anchor="middle" transform="rotate(-90 {x:.1} {y:.1})">{text}</text>"##
        ));
    }

    /// A filled rectangle, with words beside the pointer where there are some.
    pub fn rectangle(
        &mut self,
        (x, y): (f64, f64),
        (width, height): (f64, f64),
        colour: &str,
        words: &str,
    ) {
        let words = if words.is_empty() {
            String::new()
        } else {
            format!("<title>{}</title>", escaped(words))
        };
        self.line(format_args!(
            r##"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{colour}">{words}</rect>"##
        ));
    }

    /// A line from left to right.
    pub fn across(&mut self, y: f64, (from, to): (f64, f64), colour: &str) {
        self.line(format_args!(
            r##"<path d="M{from:.1} {y:.1}H{to:.1}" stroke="{colour}" stroke-width="1.5"/>"##
        ));
    }

    /// A dashed line from above to below.
    pub fn dashes_down(&mut self, x: f64, (from, to): (f64, f64), colour: &str) {
        self.line(format_args!(
            r##"<path d="M{x:.1} {from:.1}V{to:.1}" stroke="{colour}" stroke-dasharray="4 3"/>"##
        ));
    }

    /// The drawing as a file holds it.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_never_markup() {
        let mut svg = Svg::new(100.0, "a < b & c");
        svg.text((1.0, 2.0), Anchor::End, INK, "<b>");
        svg.rectangle((0.0, 0.0), (1.0, 1.0), OURS, "3 < 4");
        let text = svg.finish();
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
        assert!(
            text.contains("a &lt; b &amp; c")
                && text.contains("&lt;b>")
                && text.contains("3 &lt; 4")
        );
    }
}
