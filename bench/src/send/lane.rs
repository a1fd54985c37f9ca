//! One connection's share of the load: whole senders, nonces in order, one request in flight.

use crate::{
    http::{Connection, Endpoint},
    rpc::{REQUEST_TIMEOUT, RpcError, parse_answers},
    workload::SignedTx,
};
use alloy_primitives::B256;
use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Pause before a refused transaction is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// After this long at another endpoint a lane tries its own again.
const HOMESICK_AFTER: Duration = Duration::from_secs(3);

/// A load that several lanes share.
#[derive(Debug)]
pub(crate) struct Load {
    /// What is sent, in file order.
    pub(crate) txs: Vec<SignedTx>,
    /// Where to.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Transactions in one request, at most.
    pub(crate) batch: usize,
    /// Offered rate; without it each lane sends as fast as it is answered.
    pub(crate) tps: Option<f64>,
    /// Zero of every time in the results.
    pub(crate) start: Instant,
    /// When lanes give up.
    pub(crate) deadline: Instant,
    /// Set to end the load before its last transaction.
    pub(crate) stop: AtomicBool,
}

impl Load {
    /// Microseconds since the start.
    pub(crate) fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    /// When a transaction is to be sent.
    fn due(&self, index: usize) -> Duration {
        self.tps.map_or(Duration::ZERO, |tps| Duration::from_secs_f64(index as f64 / tps))
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || Instant::now() >= self.deadline
    }
}

/// Splits a load: whole senders go round the lanes in the order of their first line.
pub(crate) fn split(txs: &[SignedTx], lane_count: usize) -> Vec<Vec<usize>> {
    let mut lanes = vec![Vec::new(); lane_count];
    let mut lane_of = std::collections::BTreeMap::new();
    for (index, tx) in txs.iter().enumerate() {
        let next = lane_of.len() % lane_count;
        lanes[*lane_of.entry(tx.from).or_insert(next)].push(index);
    }
    lanes
}

/// What the node said of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It answered with the hash.
    Acked,
    /// Sent more than once, and the node knows it already or has included it: it got there, but this
    /// lane never saw the acknowledgement.
    Known,
    /// Refused for good.
    Rejected(String),
    /// No verdict before the load ended.
    Unanswered,
}

/// A transaction's way to its verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Its place in [`Load::txs`].
    pub(crate) index: usize,
    /// When it was first sent, or when it was due if the load has a rate, microseconds.
    pub(crate) from_us: u64,
    /// When the verdict came, microseconds.
    pub(crate) until_us: u64,
    /// What it was.
    pub(crate) verdict: Verdict,
}

/// What a lane reports.
#[derive(Debug, Default)]
pub(crate) struct LaneReport {
    /// A record for each transaction that was sent at least once.
    pub(crate) sent: Vec<Sent>,
    /// Requests made.
    pub(crate) requests: u64,
    /// Requests repeated: no leader, a full pool, a lost connection.
    pub(crate) retries: u64,
}

/// One lane at work.
#[derive(Debug)]
pub(crate) struct Lane {
    load: Arc<Load>,
    queue: Vec<usize>,
    home: usize,
    endpoint: usize,
    left_home: Instant,
    connection: Option<Connection>,
    body: Vec<u8>,
    report: LaneReport,
}

/// What becomes of a transaction after one answer.
enum Next {
    Done(Verdict),
    Again,
}

impl Lane {
    /// A lane that prefers the endpoint `home`.
    pub(crate) fn new(load: Arc<Load>, queue: Vec<usize>, home: usize) -> Self {
        let home = home % load.endpoints.len();
        Self {
            left_home: load.start,
            load,
            queue,
            home,
            endpoint: home,
            connection: None,
            body: Vec::new(),
            report: LaneReport::default(),
        }
    }

    /// Sends its whole queue, or what it can until the load ends.
    pub(crate) async fn run(mut self) -> LaneReport {
        let queue = std::mem::take(&mut self.queue);
        let mut rest = queue.as_slice();
        while !rest.is_empty() && !self.load.is_over() {
            if self.load.tps.is_some() {
                let due = self.load.start + self.load.due(rest[0]);
                tokio::time::sleep_until(due.into()).await;
            }
            let elapsed = self.load.start.elapsed();
            let ready = rest.iter().take_while(|index| self.load.due(**index) <= elapsed).count();
            let (now, later) = rest.split_at(ready.clamp(1, self.load.batch));
            self.send(now).await;
            rest = later;
        }
        self.report
    }

    /// Sends some transactions until each has a verdict.
    async fn send(&mut self, indices: &[usize]) {
        let first_us = self.load.now_us();
        let mut pending = indices.to_vec();
        let mut repeated = false;
        loop {
            self.go_home_when_due();
            let again = match self.attempt(&pending, repeated).await {
                Ok(nexts) => self.settle(&pending, nexts, first_us),
                Err(_) => {
                    self.connection = None;
                    pending
                }
            };
            if again.is_empty() {
                return;
            }
            pending = again;
            if self.load.is_over() {
                let nexts = pending.iter().map(|_| Next::Done(Verdict::Unanswered)).collect();
                self.settle(&pending, nexts, first_us);
                return;
            }
            repeated = true;
            self.report.retries += 1;
            self.try_elsewhere();
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// One request. Errors when there is no answer: whether it arrived is then unknown.
    async fn attempt(&mut self, pending: &[usize], repeated: bool) -> io::Result<Vec<Next>> {
        let Self { load, connection, body, .. } = self;
        encode(&load.txs, pending, body);
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(Connection::open(&load.endpoints[self.endpoint]).await?),
        };
        self.report.requests += 1;
        let answered = tokio::time::timeout(REQUEST_TIMEOUT, connection.post(body)).await;
        let answer = answered.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let expected: Vec<_> = pending.iter().map(|index| load.txs[*index].hash).collect();
        let nexts = read_verdicts(answer, &expected, repeated)?;
        if connection.is_closing() {
            self.connection = None;
        }
        Ok(nexts)
    }

    /// Records what is decided and returns the rest.
    fn settle(&mut self, pending: &[usize], nexts: Vec<Next>, first_us: u64) -> Vec<usize> {
        let until_us = self.load.now_us();
        let mut again = Vec::new();
        for (index, next) in pending.iter().copied().zip(nexts) {
            match next {
                Next::Again => again.push(index),
                Next::Done(verdict) => {
                    let from_us = match self.load.tps {
                        Some(_) => self.load.due(index).as_micros() as u64,
                        None => first_us,
                    };
                    self.report.sent.push(Sent { index, from_us, until_us, verdict });
                }
            }
        }
        again
    }

    fn try_elsewhere(&mut self) {
        if self.load.endpoints.len() > 1 {
            if self.endpoint == self.home {
                self.left_home = Instant::now();
            }
            self.endpoint = (self.endpoint + 1) % self.load.endpoints.len();
            self.connection = None;
        }
    }

    fn go_home_when_due(&mut self) {
        if self.endpoint != self.home && self.left_home.elapsed() >= HOMESICK_AFTER {
            self.endpoint = self.home;
            self.connection = None;
        }
    }
}

/// One call, or a batch of them, whose ids count from 0.
fn encode(txs: &[SignedTx], pending: &[usize], body: &mut Vec<u8>) {
    body.clear();
    let is_batch = pending.len() > 1;
    if is_batch {
        body.push(b'[');
    }
    for (id, index) in pending.iter().enumerate() {
        if id > 0 {
            body.push(b',');
        }
        let raw = &txs[*index].raw;
        write!(
            body,
            r#"{{"jsonrpc":"2.0","id":{id},"method":"eth_sendRawTransaction","params":["{raw}"]}}"#
        )
        .expect("a vector grows");
    }
    if is_batch {
        body.push(b']');
    }
}

/// A verdict for each expected hash. An answer that fits no call, or that the node gives to the
/// request as a whole, counts as no answer.
fn read_verdicts(body: &[u8], expected: &[B256], repeated: bool) -> io::Result<Vec<Next>> {
    let mut nexts: Vec<Next> = expected.iter().map(|_| Next::Again).collect();
    for answer in parse_answers(body)? {
        let Some(id) = answer.id.map(|id| id as usize).filter(|id| *id < expected.len()) else {
            continue;
        };
        nexts[id] = match (answer.error, answer.result) {
            (Some(error), _) => judge(&error, repeated),
            (None, Some(result)) => {
                let hash: Option<B256> = serde_json::from_str(result.get())?;
                if hash == Some(expected[id]) {
                    Next::Done(Verdict::Acked)
                } else {
                    Next::Done(Verdict::Rejected(format!("answered with {hash:?}")))
                }
            }
            (None, None) => Next::Done(Verdict::Rejected("answered with null".into())),
        };
    }
    Ok(nexts)
}

/// Words of errors that pass: no leader for now, a queue that is full for now.
const PASSING: [&str; 4] = ["no leader", "txpool is full", "pool is full", "too many"];
/// Words of errors that a second copy of an accepted transaction gets.
const ALREADY_THERE: [&str; 4] =
    ["already known", "already imported", "nonce too low", "already in the pool"];

fn judge(error: &RpcError, repeated: bool) -> Next {
    let text = error.message.to_lowercase();
    if matches!(error.code, -32002 | -32005) || PASSING.iter().any(|words| text.contains(words)) {
        Next::Again
    } else if repeated && ALREADY_THERE.iter().any(|words| text.contains(words)) {
        Next::Done(Verdict::Known)
    } else {
        Next::Done(Verdict::Rejected(format!("error {}: {}", error.code, error.message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::Address;

    fn tx(from: u8, nonce: u64) -> SignedTx {
        let hash = B256::with_last_byte(from * 16 + nonce as u8);
        SignedTx {
            raw: format!("0x0{from}"),
            hash,
            from: Address::repeat_byte(from),
            nonce,
            phase: None,
        }
    }

    #[test]
    fn a_sender_stays_on_one_lane_in_order() {
        let txs = [tx(1, 0), tx(2, 0), tx(3, 0), tx(1, 1), tx(3, 1), tx(2, 1)];
        assert_eq!(split(&txs, 2), [vec![0, 2, 3, 4], vec![1, 5]]);
    }

    #[test]
    fn requests_are_single_calls_or_batches() {
        let txs = [tx(1, 0), tx(2, 0)];
        let mut body = Vec::new();
        encode(&txs, &[1], &mut body);
        let one = r#"{"jsonrpc":"2.0","id":0,"method":"eth_sendRawTransaction","params":["0x02"]}"#;
        assert_eq!(String::from_utf8_lossy(&body), one);
        encode(&txs, &[0, 1], &mut body);
        let batch: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
        let ids: Vec<_> = batch.iter().map(|call| call["id"].as_u64().unwrap()).collect();
        assert_eq!(ids, [0, 1]);
    }

    #[test]
    fn verdicts_follow_the_answer_and_whether_it_was_sent_before() {
        let hash = B256::with_last_byte(7);
        let answer = |member: &str| format!(r#"{{"jsonrpc":"2.0","id":0,{member}}}"#);
        let error = |code: i64, message: &str| {
            answer(&format!(r#""error":{{"code":{code},"message":"{message}"}}"#))
        };
        let acked = answer(&format!(r#""result":"{hash}""#));
        let rejected = |text: &str| Some(Verdict::Rejected(text.to_owned()));
        for (body, repeated, expected) in [
            (acked.clone(), false, Some(Verdict::Acked)),
            (format!("[{acked}]"), true, Some(Verdict::Acked)),
            (answer(r#""result":null"#), false, rejected("answered with null")),
            (error(-32002, "no leader"), false, None),
            (error(-32000, "txpool is full"), false, None),
            (error(-32000, "already known"), true, Some(Verdict::Known)),
            (error(-32000, "already known"), false, rejected("error -32000: already known")),
            (error(-32003, "nonce too low"), true, Some(Verdict::Known)),
            (error(-32000, "invalid sender"), true, rejected("error -32000: invalid sender")),
            ("[]".to_owned(), false, None),
        ] {
            let nexts = read_verdicts(body.as_bytes(), &[hash], repeated).unwrap();
            let found = nexts.into_iter().map(|next| match next {
                Next::Done(verdict) => Some(verdict),
                Next::Again => None,
            });
            assert_eq!(found.collect::<Vec<_>>(), [expected], "{body}");
        }
    }

    /// A node that gives each request the next of some bodies, then stops listening. Returns where
    /// it is and, at its end, the bodies of the requests.
    async fn node(
        answers: Vec<String>,
    ) -> (Endpoint, impl Future<Output = Vec<serde_json::Value>>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::local(listener.local_addr().unwrap().port());
        let serve = async move {
            let mut requests = Vec::new();
            let mut answers = answers.into_iter();
            for answer in answers.by_ref() {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let len = stream.read(&mut request).await.unwrap();
                let text = String::from_utf8(request[..len].to_vec()).unwrap();
                let body = text.split_once("\r\n\r\n").unwrap().1;
                requests.push(serde_json::from_str(body).unwrap());
                let len = answer.len();
                let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len}");
                stream.write_all(format!("{head}\r\n\r\n{answer}").as_bytes()).await.unwrap();
            }
            requests
        };
        (endpoint, serve)
    }

    #[tokio::test]
    async fn a_refused_transaction_goes_to_another_node_and_counts_once() {
        let txs = vec![tx(1, 0), tx(1, 1)];
        let answer = |id: u64, member: String| format!(r#"{{"jsonrpc":"2.0","id":{id},{member}}}"#);
        let acked = |id, tx: &SignedTx| answer(id, format!(r#""result":"{}""#, tx.hash));
        let no_leader = r#""error":{"code":-32002,"message":"no leader"}"#.to_owned();
        // The first node takes one of the two; the second is asked for the other alone.
        let batch = format!("[{},{}]", answer(1, no_leader), acked(0, &txs[0]));
        let (first, serve_first) = node(vec![batch]).await;
        let (second, serve_second) = node(vec![acked(0, &txs[1])]).await;
        let start = Instant::now();
        let load = Arc::new(Load {
            txs: txs.clone(),
            endpoints: vec![first, second],
            batch: 2,
            tps: None,
            start,
            deadline: start + Duration::from_secs(30),
            stop: AtomicBool::new(false),
        });
        let lane = Lane::new(load, vec![0, 1], 0).run();
        let (report, first, second) = tokio::join!(lane, serve_first, serve_second);
        let verdicts: Vec<_> = report.sent.iter().map(|s| (s.index, s.verdict.clone())).collect();
        assert_eq!(verdicts, [(0, Verdict::Acked), (1, Verdict::Acked)]);
        assert_eq!((report.requests, report.retries), (2, 1));
        assert_eq!(first[0].as_array().unwrap().len(), 2);
        assert_eq!(second[0]["params"][0], txs[1].raw.as_str());
    }
}
