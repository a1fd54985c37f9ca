//! A node's `/metrics`: sums of counters.

use crate::http::Endpoint;
use anyhow::Context;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const TIMEOUT: Duration = Duration::from_secs(10);

/// The page as it was answered.
#[derive(Debug)]
pub(crate) struct Metrics {
    text: String,
}

/// Asks a node for its metrics.
pub(crate) async fn read(endpoint: &Endpoint) -> anyhow::Result<Metrics> {
    let ask = async {
        let mut stream = TcpStream::connect(endpoint.address()).await?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        anyhow::Ok(Metrics { text })
    };
    tokio::time::timeout(TIMEOUT, ask)
        .await
        .context("no answer in time")
        .flatten()
        .with_context(|| format!("metrics of {endpoint}"))
}

impl Metrics {
    /// All of it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// One series, named with its labels; 0 if there is no such.
    pub(crate) fn value(&self, series: &str) -> u64 {
        let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse::<f64>().ok();
        self.text.lines().find_map(value).unwrap_or_default() as u64
    }

    /// The sum over all labels.
    pub(crate) fn sum(&self, name: &str) -> u64 {
        let value = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let this = series == name || series.split_once('{').is_some_and(|(n, _)| n == name);
            this.then(|| value.parse::<f64>().ok())?
        };
        self.text.lines().filter_map(value).sum::<f64>() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_summed_and_longer_names_left_out() {
        let text = "# TYPE a counter\na 3\na{b=\"c d\"} 4\na_total 9\nnone\n".to_owned();
        let metrics = Metrics { text };
        assert_eq!(metrics.sum("a"), 7);
        assert_eq!(["a{b=\"c d\"}", "a", "b"].map(|series| metrics.value(series)), [4, 3, 0]);
    }
}
