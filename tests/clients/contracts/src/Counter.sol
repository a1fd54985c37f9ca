// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

/// One number, with an event, a custom error and a reason string to decode.
contract Counter {
    error TooLarge(uint256 got, uint256 limit);

    event NumberSet(address indexed by, uint256 value);

    uint256 public constant LIMIT = 1000;
    uint256 public number;

    constructor(uint256 start) {
        number = start;
    }

    function setNumber(uint256 value) external {
        if (value > LIMIT) revert TooLarge(value, LIMIT);
        number = value;
        emit NumberSet(msg.sender, value);
    }

    function increment() external {
        number += 1;
        emit NumberSet(msg.sender, number);
    }

    function refuse() external pure {
        revert("not today");
    }
}
