//! Which version of a method takes which fork's blocks, and in which shape.

use super::{EngineError, payload::PayloadParam};
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{B256, Bytes};
use alloy_rpc_types_engine::PayloadAttributes;
use blockraft_primitives::ChainSpec;
use std::fmt;

/// The forks that changed the Engine API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fork {
    Paris,
    Shanghai,
    Cancun,
    Prague,
    Osaka,
    Amsterdam,
}

impl fmt::Display for Fork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Fork {
    /// The fork that is active at a time, of a chain that has merged.
    pub(super) fn at(spec: &ChainSpec, timestamp: u64) -> Self {
        if spec.is_amsterdam_active_at_timestamp(timestamp) {
            Self::Amsterdam
        } else if spec.is_osaka_active_at_timestamp(timestamp) {
            Self::Osaka
        } else if spec.is_prague_active_at_timestamp(timestamp) {
            Self::Prague
        } else if spec.is_cancun_active_at_timestamp(timestamp) {
            Self::Cancun
        } else if spec.is_shanghai_active_at_timestamp(timestamp) {
            Self::Shanghai
        } else {
            Self::Paris
        }
    }
}

/// What comes with a payload from Cancun and Prague on.
#[derive(Debug, Default)]
pub(super) struct Beside {
    pub(super) versioned_hashes: Option<Vec<B256>>,
    pub(super) beacon_root: Option<B256>,
    pub(super) requests: Option<Vec<Bytes>>,
}

/// Checks the shape of `engine_newPayloadV<version>`'s arguments.
pub(super) fn check_new_payload(
    version: u8,
    fork: Fork,
    payload: &PayloadParam,
    beside: &Beside,
) -> Result<(), EngineError> {
    if version == 2 && fork >= Fork::Cancun {
        return Err(wrong_fork("newPayloadV2", fork));
    }
    let withdrawals = match version {
        1 => false,
        2 => fork >= Fork::Shanghai,
        _ => true,
    };
    let cancun = version >= 3;
    let present = [
        ("withdrawals", payload.withdrawals.is_some(), withdrawals),
        ("excessBlobGas", payload.excess_blob_gas.is_some(), cancun),
        ("blobGasUsed", payload.blob_gas_used.is_some(), cancun),
        ("versionedHashes", beside.versioned_hashes.is_some(), cancun),
        ("parentBeaconBlockRoot", beside.beacon_root.is_some(), cancun),
        ("executionRequests", beside.requests.is_some(), version >= 4),
    ];
    for (field, is, should) in present {
        if is != should {
            let is = if is { "unexpected" } else { "missing" };
            return Err(EngineError::InvalidParams(format!("{is} {field}")));
        }
    }
    let right = match version {
        1 | 2 => true,
        3 => fork == Fork::Cancun,
        _ => matches!(fork, Fork::Prague | Fork::Osaka),
    };
    if !right {
        return Err(wrong_fork(&format!("newPayloadV{version}"), fork));
    }
    check_requests(beside.requests.as_deref().unwrap_or_default())
}

/// EIP-7685: one list a type, ascending, none empty.
fn check_requests(requests: &[Bytes]) -> Result<(), EngineError> {
    let mut last = None;
    for request in requests {
        let [request_type, _, ..] = request[..] else {
            let problem = format!("empty execution request {request}");
            return Err(EngineError::InvalidParams(problem));
        };
        if last.is_some_and(|last| last >= request_type) {
            let problem = format!("execution request of type {request_type} is out of order");
            return Err(EngineError::InvalidParams(problem));
        }
        last = Some(request_type);
    }
    Ok(())
}

/// Checks the attributes of `engine_forkchoiceUpdatedV<version>`.
pub(super) fn check_attributes(
    version: u8,
    fork: Fork,
    attributes: &PayloadAttributes,
) -> Result<(), EngineError> {
    let withdrawals = match version {
        1 => false,
        2 => fork >= Fork::Shanghai,
        _ => true,
    };
    let present = [
        ("parentBeaconBlockRoot", attributes.parent_beacon_block_root.is_some(), version >= 3),
        ("withdrawals", attributes.withdrawals.is_some(), withdrawals),
    ];
    for (field, is, should) in present {
        // Attributes of a fork that the method is not for are of the wrong fork first.
        if is != should && (version >= 3 || fork < Fork::Cancun) {
            let is = if is { "unexpected" } else { "missing" };
            return Err(EngineError::InvalidAttributes(format!("{is} {field}")));
        }
    }
    let right = match version {
        1 => fork == Fork::Paris,
        2 => fork <= Fork::Shanghai,
        _ => (Fork::Cancun..=Fork::Osaka).contains(&fork),
    };
    if right { Ok(()) } else { Err(wrong_fork(&format!("forkchoiceUpdatedV{version}"), fork)) }
}

/// Checks that `engine_getPayloadV<version>` may return a block of this fork.
pub(super) fn check_get_payload(version: u8, fork: Fork) -> Result<(), EngineError> {
    let right = match version {
        1 => fork == Fork::Paris,
        2 => fork <= Fork::Shanghai,
        3 => fork == Fork::Cancun,
        4 => fork == Fork::Prague,
        _ => fork == Fork::Osaka,
    };
    if right { Ok(()) } else { Err(wrong_fork(&format!("getPayloadV{version}"), fork)) }
}

fn wrong_fork(method: &str, fork: Fork) -> EngineError {
    EngineError::UnsupportedFork(format!("{method} is not for blocks of {fork}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Fork::{Amsterdam, Cancun, Osaka, Paris, Prague, Shanghai};
    use alloy_primitives::bytes;

    const FORKS: [Fork; 6] = [Paris, Shanghai, Cancun, Prague, Osaka, Amsterdam];

    /// A payload and what comes beside it, as the fork has them.
    fn of(fork: Fork) -> (PayloadParam, Beside) {
        let cancun = fork >= Cancun;
        let payload = PayloadParam {
            withdrawals: (fork >= Shanghai).then(Vec::new),
            blob_gas_used: cancun.then_some(0),
            excess_blob_gas: cancun.then_some(0),
            ..PayloadParam::default()
        };
        let beside = Beside {
            versioned_hashes: cancun.then(Vec::new),
            beacon_root: cancun.then_some(B256::ZERO),
            requests: (fork >= Prague).then(Vec::new),
        };
        (payload, beside)
    }

    fn code(result: Result<(), EngineError>) -> i32 {
        match result {
            Ok(()) => 0,
            Err(EngineError::InvalidParams(_)) => -32602,
            Err(EngineError::InvalidAttributes(_)) => -38003,
            Err(EngineError::UnsupportedFork(_)) => -38005,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_payload_goes_to_its_forks_version() {
        // Rows are versions, columns the forks, each payload shaped as its fork wants it.
        let expected = [
            (1, [0, -32602, -32602, -32602, -32602, -32602]),
            (2, [0, 0, -38005, -38005, -38005, -38005]),
            (3, [-32602, -32602, 0, -32602, -32602, -32602]),
            (4, [-32602, -32602, -32602, 0, 0, -38005]),
        ];
        for (version, codes) in expected {
            for (fork, expected) in FORKS.into_iter().zip(codes) {
                let (payload, beside) = of(fork);
                let got = code(check_new_payload(version, fork, &payload, &beside));
                assert_eq!(got, expected, "V{version} of {fork}");
            }
        }
        // Cancun's shape at another fork's time.
        let (payload, beside) = of(Cancun);
        for fork in [Shanghai, Prague, Osaka] {
            assert_eq!(code(check_new_payload(3, fork, &payload, &beside)), -38005, "{fork}");
        }
        let (payload, beside) = of(Prague);
        assert_eq!(code(check_new_payload(4, Cancun, &payload, &beside)), -38005);
    }

    #[test]
    fn requests_ascend_and_are_not_empty() {
        let rows: [(Vec<Bytes>, i32); 6] = [
            (vec![bytes!("0001"), bytes!("0101"), bytes!("0203")], 0),
            (vec![bytes!("0001"), bytes!("02ff")], 0),
            (vec![bytes!("00")], -32602),
            (vec![bytes!("")], -32602),
            (vec![bytes!("0101"), bytes!("0001")], -32602),
            (vec![bytes!("0101"), bytes!("0102")], -32602),
        ];
        for (requests, expected) in rows {
            assert_eq!(code(check_requests(&requests)), expected, "{requests:?}");
        }
    }

    #[test]
    fn attributes_go_to_their_forks_version() {
        let of = |fork| PayloadAttributes {
            withdrawals: (fork >= Shanghai).then(Vec::new),
            parent_beacon_block_root: (fork >= Cancun).then_some(B256::ZERO),
            ..Default::default()
        };
        let expected = [
            (1, [0, -38003, -38005, -38005, -38005, -38005]),
            (2, [0, 0, -38005, -38005, -38005, -38005]),
            (3, [-38003, -38003, 0, 0, 0, -38005]),
        ];
        for (version, codes) in expected {
            for (fork, expected) in FORKS.into_iter().zip(codes) {
                let got = code(check_attributes(version, fork, &of(fork)));
                assert_eq!(got, expected, "V{version} of {fork}");
            }
        }
        assert_eq!(code(check_attributes(2, Shanghai, &of(Paris))), -38003);
        assert_eq!(code(check_attributes(2, Paris, &of(Shanghai))), -38003);
        assert_eq!(code(check_attributes(3, Shanghai, &of(Cancun))), -38005);
    }

    #[test]
    fn a_built_payload_is_got_by_its_forks_version() {
        for (version, forks) in [
            (1, &[Paris][..]),
            (2, &[Paris, Shanghai]),
            (3, &[Cancun]),
            (4, &[Prague]),
            (5, &[Osaka]),
        ] {
            for fork in FORKS {
                let expected = if forks.contains(&fork) { 0 } else { -38005 };
                assert_eq!(
                    code(check_get_payload(version, fork)),
                    expected,
                    "V{version} of {fork}"
                );
            }
        }
    }
}
