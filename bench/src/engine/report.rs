//! The table: ratios with their spread, and what must hold.

use crate::state::Bound;
use serde::Serialize;
use std::fmt;

/// One row of the table.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    /// What was measured.
    what: String,
    /// Its turns.
    spread: Spread,
    /// Of the values.
    unit: &'static str,
    /// What the median comes from.
    detail: String,
    /// What must hold, as it is promised.
    must: Option<Bound>,
    /// What would be good.
    reach: Option<Bound>,
    /// Whether `must` holds of the median.
    holds: bool,
}

/// Of several values.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

impl Spread {
    /// Of at least one value.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (values.first(), values.last()) else {
            return Self { min: f64::NAN, median: f64::NAN, max: f64::NAN };
        };
        Self { min: *min, median: values[values.len() / 2], max: *max }
    }
}

/// The table.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    rows: Vec<Row>,
}

/// Nothing is promised; the figure explains another.
pub(super) const FREE: (Option<Bound>, Option<Bound>) = (None, None);

impl Report {
    pub(super) fn add(
        &mut self,
        what: impl Into<String>,
        (spread, unit): (Spread, &'static str),
        detail: impl Into<String>,
        (must, reach): (Option<Bound>, Option<Bound>),
    ) {
        let holds = must.is_none_or(|must| must.holds(spread.median));
        let (what, detail) = (what.into(), detail.into());
        self.rows.push(Row { what, spread, unit, detail, must, reach, holds });
    }

    /// Whether every row is what it must be.
    pub(super) fn holds(&self) -> bool {
        self.rows.iter().all(|row| row.holds)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | median (min to max) | must | reach for | holds |")?;
        writeln!(f, "|---|---|---|---|---|")?;
        for Row { what, spread, unit, detail, must, reach, holds } in &self.rows {
            let Spread { min, median, max } = spread;
            let bound = |bound: &Option<Bound>| {
                bound.map_or_else(|| "-".to_owned(), |bound| format!("{bound}{unit}"))
            };
            let holds = match (must, holds) {
                (None, _) => "-",
                (_, true) => "yes",
                (_, false) => "NO",
            };
            let (must, reach) = (bound(must), bound(reach));
            writeln!(
                f,
                "| {what} | {median:.2}{unit} ({min:.2} to {max:.2}; {detail}) | {must} | {reach} | {holds} |"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::at_most;

    #[test]
    fn rows_hold_by_their_medians() {
        let mut report = Report::default();
        report.add("a", (Spread::of([3.0, 1.0, 1.1]), "x"), "", at_most(1.5, 1.0));
        report.add("b", (Spread::of([9.0]), "x"), "", FREE);
        assert!(report.holds());
        report.add("c", (Spread::of([1.6, 1.4, 1.7]), "x"), "", at_most(1.5, 1.0));
        assert!(!report.holds());
        report.add("d", (Spread::of([]), "x"), "nothing measured", at_most(1.5, 1.0));
        assert!(!report.rows[3].holds, "no value holds nothing");
    }
}
