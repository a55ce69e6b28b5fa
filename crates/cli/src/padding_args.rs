//! The options that say how much padding is allowed.

use shapeyard_core::plan::PaddingLimit;

/// What a command takes that pads work into programs.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct PaddingArgs {
    /// The most of what a program runs that may be padding, in percent; what would need more runs elsewhere
    /// [default: any]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    max_padding: Option<f64>,
    /// Padding that is allowed in any case, in tokens a row
    #[arg(long, value_name = "N", requires = "max_padding")]
    max_padding_tokens: Option<usize>,
}

impl PaddingArgs {
    pub(crate) const fn is_given(&self) -> bool {
        self.max_padding.is_some()
    }

    pub(crate) fn limit(&self) -> PaddingLimit {
        match self.max_padding {
            None => PaddingLimit::NONE,
            Some(percent) => PaddingLimit {
                share: percent / 100.0,
                tokens: self.max_padding_tokens.unwrap_or(0),
            },
        }
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.trim().trim_end_matches('%').parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("expected is a percentage, from 0 to 100".to_owned()),
    }
}
