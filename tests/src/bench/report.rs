//! What a bench has found, as JSON and as a table.

use serde::Serialize;

use super::meter::{self, Noise as Measured};

/// The figures of one bench.
#[derive(Debug, Serialize)]
pub struct Report {
    bench: &'static str,
    rows: Vec<Row>,
    noise: Noise,
}

/// One figure. A goal is the most that is allowed: of the ratio where there is one, else of the value.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    case: String,
    value: f64,
    unit: &'static str,
    peer: Option<&'static str>,
    peer_value: Option<f64>,
    ratio: Option<f64>,
    goal: Option<f64>,
    met: Option<bool>,
}

/// How far the figures can be trusted, in percent.
#[derive(Debug, Serialize)]
struct Noise {
    processors: f64,
    /// Of all processors, what others took: over all rounds.
    other_median: f64,
    other_max: f64,
    steal_max: f64,
    /// Difference of the best and the worst round over the median, of the rates: over all cases.
    spread_median: f64,
    spread_max: f64,
}

/// Collects rows and noise.
pub(super) struct Findings {
    bench: &'static str,
    rows: Vec<Row>,
    others: Vec<f64>,
    steals: Vec<f64>,
    spreads: Vec<f64>,
}

impl Row {
    pub(super) fn new(case: impl Into<String>, value: f64, unit: &'static str) -> Self {
        let value = rounded(value);
        Self {
            case: case.into(),
            value,
            unit,
            peer: None,
            peer_value: None,
            ratio: None,
            goal: None,
            met: None,
        }
    }

    pub(super) fn beside(self, peer: &'static str, value: f64) -> Self {
        let ratio = (value > 0.0).then(|| rounded(self.value / value));
        Self { peer: Some(peer), peer_value: Some(rounded(value)), ratio, ..self }
    }

    pub(super) fn at_most(self, goal: f64) -> Self {
        let met = self.ratio.unwrap_or(self.value) <= goal;
        Self { goal: Some(goal), met: Some(met), ..self }
    }
}

impl Findings {
    pub(super) fn new(bench: &'static str) -> Self {
        Self {
            bench,
            rows: Vec::new(),
            others: Vec::new(),
            steals: Vec::new(),
            spreads: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, row: Row) {
        super::progress(format_args!("  {}", row.line()));
        self.rows.push(row);
    }

    pub(super) fn noise(&mut self, noise: Measured) {
        self.others.push(noise.other);
        self.steals.push(noise.steal);
    }

    /// Takes note of how far the rounds of one case lie apart.
    pub(super) fn spread(&mut self, rounds: &[f64]) {
        let (least, most) = rounds
            .iter()
            .fold((f64::MAX, 0.0_f64), |(least, most), &one| (least.min(one), most.max(one)));
        let middle = median(rounds);
        if middle > 0.0 {
            self.spreads.push(100.0 * (most - least) / middle);
        }
    }

    pub(super) fn report(self) -> Report {
        let most = |values: &[f64]| rounded(values.iter().copied().fold(0.0, f64::max));
        let noise = Noise {
            processors: meter::processors(),
            other_median: rounded(median(&self.others)),
            other_max: most(&self.others),
            steal_max: most(&self.steals),
            spread_median: rounded(median(&self.spreads)),
            spread_max: most(&self.spreads),
        };
        Report { bench: self.bench, rows: self.rows, noise }
    }
}

impl Report {
    /// One object on one line.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("write figures as JSON")
    }

    /// For people.
    pub fn table(&self) -> String {
        let width = self.rows.iter().map(|row| row.case.chars().count()).max().unwrap_or(0);
        let mut text = format!(
            "{}\n\n{:width$}  {:>10} {:8}  {:>10}  {:>7}  goal\n",
            self.bench, "case", "value", "unit", "peer", "ratio"
        );
        let number =
            |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        for row in &self.rows {
            let Row { case, value, unit, peer_value, ratio, goal, met, .. } = row;
            let goal = match (goal, met) {
                (Some(goal), Some(true)) => format!("at most {goal}: met"),
                (Some(goal), _) => format!("at most {goal}: MISSED"),
                (None, _) => String::new(),
            };
            let line = format!(
                "{case:width$}  {value:>10} {unit:8}  {:>10}  {:>7}  {goal}",
                number(*peer_value),
                number(*ratio)
            );
            text.push_str(line.trim_end());
            text.push('\n');
        }
        let mut peers: Vec<&str> = self.rows.iter().filter_map(|row| row.peer).collect();
        peers.dedup();
        let Noise { processors, other_median, other_max, steal_max, spread_median, spread_max } =
            &self.noise;
        text.push_str(&format!(
            "\npeer: {}\nnoise: {processors} processors; others took {other_median} % of them (at most {other_max} %), \
             steal at most {steal_max} %; rounds differ by {spread_median} % (at most {spread_max} %)\n",
            if peers.is_empty() { "none".to_owned() } else { peers.join("; ") },
        ));
        text
    }
}

impl Row {
    fn line(&self) -> String {
        let beside = self.peer_value.map(|value| format!(" (peer {value})")).unwrap_or_default();
        format!("{}: {} {}{beside}", self.case, self.value, self.unit)
    }
}

/// The middle one; of an even number the lower of the two. 0 of none.
pub(super) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below or at which this share of them lies. 0 of none.
pub(super) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = u32::try_from(sorted.len()).map(f64::from).unwrap_or(f64::MAX);
    let rank = (share * count).ceil().max(1.0);
    sorted
        .into_iter()
        .zip(1_u32..)
        .find(|(_, place)| f64::from(*place) >= rank)
        .map_or(0.0, |(value, _)| value)
}

/// Three significant digits: more would claim what no run can hold.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let digits = 2.0 - value.abs().log10().floor();
    let scale = 10_f64.powf(digits.max(0.0));
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_of_the_ratio_where_there_is_one() {
        let row = Row::new("a", 1.0, "ms").beside("peer", 4.0).at_most(0.5);
        assert_eq!((row.ratio, row.met), (Some(0.25), Some(true)));
        assert_eq!(Row::new("a", 5.0, "MB").at_most(4.0).met, Some(false));
        assert_eq!(Row::new("a", 5.0, "ms").beside("peer", 0.0).ratio, None);
    }

    #[test]
    fn quantiles_and_rounding() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(
            (median(&values), quantile(&values, 0.99), quantile(&values, 1.0)),
            (50.0, 99.0, 100.0)
        );
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[])), (2.0, 0.0));
        assert_eq!((rounded(1234.5), rounded(0.012345), rounded(0.0)), (1235.0, 0.0123, 0.0));
    }

    #[test]
    fn a_report_is_one_object_with_the_agreed_keys() {
        let mut findings = Findings::new("offload");
        findings.add(Row::new("a", 1.0, "ms").beside("peer", 2.0));
        let json: serde_json::Value = serde_json::from_str(&findings.report().json()).unwrap();
        let row = &json["rows"][0];
        for key in ["case", "value", "unit", "peer", "peer_value", "ratio", "goal", "met"] {
            assert!(row.get(key).is_some(), "{key}");
        }
        assert!(json["bench"] == "offload" && json["noise"].is_object() && row["goal"].is_null());
    }
}
