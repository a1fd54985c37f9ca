// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import {Counter} from "../src/Counter.sol";
import {Token} from "../src/Token.sol";

/// The three cheat codes that the script needs.
interface Vm {
    function envUint(string calldata name) external view returns (uint256);
    function startBroadcast(uint256 privateKey) external;
    function stopBroadcast() external;
}

/// Deploys both contracts and uses them: four transactions, sent back to back.
contract Deploy {
    Vm private constant VM = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    bool public constant IS_SCRIPT = true;

    function run() external returns (Counter counter, Token token) {
        VM.startBroadcast(VM.envUint("PRIVATE_KEY"));
        counter = new Counter(7);
        counter.increment();
        token = new Token("Scripted", "SCR", 1_000_000 ether);
        token.transfer(address(counter), 25 ether);
        VM.stopBroadcast();
        require(counter.number() == 8, "counter");
        require(token.balanceOf(address(counter)) == 25 ether, "token");
    }
}
