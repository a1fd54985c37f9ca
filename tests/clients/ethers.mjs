// ethers v6 against a cluster: every write goes to one node and is read back from the others.
// Environment: RPC_URLS (space separated), CHAIN_ID, PRIVATE_KEY; contracts/out holds the artifacts.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Contract, ContractFactory, JsonRpcProvider, NonceManager, Wallet, WebSocketProvider, isError, parseEther } from "ethers";

const urls = process.env.RPC_URLS.split(" ");
// ethers keeps answers for 250 ms, which hides a nonce that has moved on; the polling interval is per block.
const settings = { cacheTimeout: -1, pollingInterval: 50 };
const nodes = urls.map((url) => new JsonRpcProvider(url, undefined, settings));
const [first, last] = [nodes[0], nodes[nodes.length - 1]];
const wallet = new Wallet(process.env.PRIVATE_KEY);
const artifact = (name) => {
  const { abi, bytecode } = JSON.parse(readFileSync(`contracts/out/${name}.sol/${name}.json`));
  return { abi, bytecode: bytecode.object };
};

// The receipt as every node tells it; they must agree.
async function mined(hash, status = 1) {
  const receipts = await Promise.all(nodes.map((n) => n.waitForTransaction(hash, 1, 20_000)));
  for (const receipt of receipts) assert.deepEqual(receipt.toJSON(), receipts[0].toJSON());
  assert.equal(receipts[0].status, status);
  return receipts[0];
}
const rejected = (promise) => promise.then(() => assert.fail("accepted"), (e) => e);

console.log("ethers: chain");
for (const node of nodes) assert.equal((await node.getNetwork()).chainId, BigInt(process.env.CHAIN_ID));

console.log("ethers: transfers");
const stranger = Wallet.createRandom().address;
const sent = await wallet.connect(last).sendTransaction({ to: stranger, value: parseEther("1.5") });
const receipt = await mined(sent.hash);
assert.equal(receipt.gasUsed, 21_000n);
await mined((await wallet.connect(first).sendTransaction({ to: stranger, value: 1n, type: 0 })).hash);
for (const node of nodes) {
  assert.equal(await node.getBalance(stranger), parseEther("1.5") + 1n);
  const block = await node.getBlock(receipt.blockHash, true);
  assert.equal(block.number, receipt.blockNumber);
  assert.equal(block.getPrefetchedTransaction(sent.hash).from, wallet.address);
}
const fees = await last.getFeeData();
assert.ok(fees.gasPrice > 0n && fees.maxFeePerGas > 0n && fees.maxPriorityFeePerGas >= 0n);

console.log("ethers: deployment, events, errors");
const counterArtifact = artifact("Counter");
const factory = new ContractFactory(counterArtifact.abi, counterArtifact.bytecode, wallet.connect(first));
const deployment = await factory.deploy(5n);
await mined(deployment.deploymentTransaction().hash);
const address = await deployment.getAddress();
const counters = nodes.map((node) => new Contract(address, counterArtifact.abi, wallet.connect(node)));
const [onFirst, onLast] = [counters[0], counters[counters.length - 1]];
const written = await mined((await onLast.setNumber(42n)).hash);
for (const counter of counters) {
  assert.equal(await counter.number(), 42n);
  const events = await counter.queryFilter(counter.filters.NumberSet(wallet.address), receipt.blockNumber);
  assert.deepEqual(events.map((e) => [e.transactionHash, e.args.by, e.args.value]), [[written.hash, wallet.address, 42n]]);
}
const custom = await rejected(onLast.setNumber.staticCall(1001n));
assert.ok(isError(custom, "CALL_EXCEPTION"), custom);
assert.deepEqual([custom.revert.name, [...custom.revert.args]], ["TooLarge", [1001n, 1000n]]);
const estimated = await rejected(onFirst.setNumber(1001n)); // fails in eth_estimateGas
assert.equal(onFirst.interface.parseError(estimated.data).name, "TooLarge");
const reason = await rejected(onFirst.refuse.staticCall());
assert.equal(reason.reason, "not today");
const thrown = await rejected(onLast.refuse.staticCall({ gasLimit: 100_000n }));
assert.equal(thrown.reason, "not today");
assert.ok(isError(await rejected(wallet.connect(last).sendTransaction({ to: stranger, value: 1n, nonce: 0 })), "NONCE_EXPIRED"));
assert.ok(isError(await rejected(wallet.connect(last).sendTransaction({ to: stranger, value: parseEther("1000000000") })), "INSUFFICIENT_FUNDS"));

console.log("ethers: a token, twenty transfers back to back without waiting");
const tokenArtifact = artifact("Token");
const manager = new NonceManager(wallet.connect(first));
const token = await new ContractFactory(tokenArtifact.abi, tokenArtifact.bytecode, manager).deploy("Test", "TST", 1_000n);
await mined(token.deploymentTransaction().hash);
const hashes = [];
for (let i = 0; i < 20; i++) hashes.push((await token.transfer(stranger, 3n, { gasLimit: 100_000n })).hash);
for (const hash of hashes) await mined(hash);
for (const node of nodes) {
  const view = token.connect(node);
  assert.equal(await view.balanceOf(stranger), 60n);
  assert.equal((await view.queryFilter(view.filters.Transfer(wallet.address, stranger), receipt.blockNumber)).length, 20);
}
const short = await rejected(token.transfer.staticCall(stranger, 10_000n));
assert.deepEqual([short.revert.name, short.revert.args.got, short.revert.args.needed], ["InsufficientBalance", 940n, 10_000n]);

console.log("ethers: newHeads and logs over WebSocket on one node while another is written to");
const socket = new WebSocketProvider(urls[0].replace(/^http/, "ws"));
const heads = [];
const values = [];
let arrived;
const complete = new Promise((resolve) => { arrived = resolve; });
const check = () => { if (values.length >= 3 && heads.length >= 3) arrived(); };
await socket.on("block", (number) => { heads.push(number); check(); });
const listening = new Contract(address, counterArtifact.abi, socket);
await listening.on("NumberSet", (by, value) => { values.push(value); check(); });
await socket.getBlockNumber();
for (const value of [21n, 22n, 23n]) await mined((await onLast.setNumber(value)).hash);
const timer = setTimeout(() => { console.error("subscriptions:", heads, values); process.exit(1); }, 20_000);
await complete;
clearTimeout(timer);
assert.deepEqual(values, [21n, 22n, 23n]);
for (let i = 1; i < heads.length; i++) assert.equal(heads[i], heads[i - 1] + 1);
await socket.destroy();

console.log("ethers: passed");
process.exit(0);
