// viem against a cluster: every write goes to one node and is read back from the others.
// Environment: RPC_URLS (space separated), CHAIN_ID, PRIVATE_KEY; contracts/out holds the artifacts.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import {
  BaseError, ContractFunctionRevertedError, createPublicClient, createWalletClient, defineChain,
  http, keccak256, parseEther, parseEventLogs, parseGwei, webSocket,
} from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";

const urls = process.env.RPC_URLS.split(" ");
const chain = defineChain({
  id: Number(process.env.CHAIN_ID),
  name: "cluster under test",
  nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
  rpcUrls: { default: { http: urls } },
  contracts: { multicall3: { address: "0xcA11bde05977b3631167028862bE2a173976CA11" } },
});
const account = privateKeyToAccount(process.env.PRIVATE_KEY);
const options = { chain, pollingInterval: 50 };
const nodes = urls.map((url) => createPublicClient({ ...options, transport: http(url) }));
const wallets = urls.map((url) => createWalletClient({ ...options, account, transport: http(url) }));
const [first, last] = [nodes[0], nodes[nodes.length - 1]];
const [firstWallet, lastWallet] = [wallets[0], wallets[wallets.length - 1]];
const artifact = (name) => {
  const { abi, bytecode } = JSON.parse(readFileSync(`contracts/out/${name}.sol/${name}.json`));
  return { abi, bytecode: bytecode.object };
};

// The receipt as every node tells it; they must agree to the last field.
async function mined(hash, status = "success") {
  const receipts = await Promise.all(nodes.map((n) => n.waitForTransactionReceipt({ hash, timeout: 20_000 })));
  for (const receipt of receipts) assert.deepEqual(receipt, receipts[0]);
  assert.equal(receipts[0].status, status);
  return receipts[0];
}
async function revertOf(promise) {
  const error = await promise.then(() => assert.fail("accepted"), (e) => e);
  assert.ok(error instanceof BaseError, error);
  const revert = error.walk((e) => e instanceof ContractFunctionRevertedError);
  assert.ok(revert, error);
  return revert;
}

console.log("viem: chain");
for (const node of nodes) {
  assert.equal(await node.getChainId(), chain.id);
  for (const blockTag of ["latest", "safe", "finalized", "pending", "earliest"]) {
    assert.match((await node.getBlock({ blockTag })).parentHash, /^0x[0-9a-f]{64}$/);
  }
}

console.log("viem: transfers");
const stranger = privateKeyToAccount(generatePrivateKey());
const plain = await mined(await lastWallet.sendTransaction({ to: stranger.address, value: parseEther("2") }));
assert.equal(plain.gasUsed, 21_000n);
assert.equal(plain.type, "eip1559");
await mined(await firstWallet.sendTransaction({ to: stranger.address, value: 1n, type: "legacy" }));
await mined(await lastWallet.sendTransaction({ to: stranger.address, value: 1n, type: "eip2930", accessList: [] }));
for (const node of nodes) {
  assert.equal(await node.getBalance({ address: stranger.address }), parseEther("2") + 2n);
  assert.equal((await node.getTransaction({ hash: plain.transactionHash })).from, account.address.toLowerCase());
}

console.log("viem: raw transaction answered with its receipt (EIP-7966)");
const request = await firstWallet.prepareTransactionRequest({ to: stranger.address, value: 3n });
const serialized = await account.signTransaction(request);
const synced = await last.sendRawTransactionSync({ serializedTransaction: serialized, timeout: 10_000 });
assert.equal(synced.transactionHash, keccak256(serialized));
assert.equal(synced.status, "success");

console.log("viem: deployment, reads, writes");
const counter = artifact("Counter");
const deployed = await mined(await firstWallet.deployContract({ ...counter, args: [5n] }));
const contract = { address: deployed.contractAddress, abi: counter.abi };
for (const node of nodes) assert.equal(await node.readContract({ ...contract, functionName: "number" }), 5n);
const written = await mined(await lastWallet.writeContract({ ...contract, functionName: "setNumber", args: [77n] }));
const [event] = parseEventLogs({ abi: counter.abi, logs: written.logs });
assert.deepEqual(event.args, { by: account.address, value: 77n });
for (const node of nodes) {
  const logs = await node.getContractEvents({ ...contract, eventName: "NumberSet", fromBlock: deployed.blockNumber });
  assert.deepEqual(logs.map((log) => [log.transactionHash, log.args.value]), [[written.transactionHash, 77n]]);
  assert.equal(await node.readContract({ ...contract, functionName: "number", blockNumber: deployed.blockNumber }), 5n);
  const [now] = await node.multicall({
    contracts: [{ ...contract, functionName: "number" }], allowFailure: false,
  });
  assert.equal(now, 77n);
}

console.log("viem: errors");
const tooLarge = await revertOf(
  last.simulateContract({ ...contract, functionName: "setNumber", args: [1001n], account }));
assert.equal(tooLarge.data.errorName, "TooLarge");
assert.deepEqual(tooLarge.data.args, [1001n, 1000n]);
assert.equal((await revertOf(first.simulateContract({ ...contract, functionName: "refuse", account }))).reason, "not today");
await mined(await firstWallet.writeContract({ ...contract, functionName: "refuse", gas: 100_000n }), "reverted");
for (const [named, overrides] of [
  ["NonceTooLowError", { nonce: 0 }],
  ["InsufficientFundsError", { value: parseEther("1000000000") }],
  ["IntrinsicGasTooLowError", { gas: 20_000n }],
]) {
  const bad = lastWallet.sendTransaction({
    to: stranger.address, gas: 21_000n, maxFeePerGas: parseGwei("20"), maxPriorityFeePerGas: 1n, ...overrides,
  });
  const error = await bad.then(() => assert.fail(`${named}: accepted`), (e) => e);
  assert.ok(error.walk((e) => e.name === named), `${named}, got: ${error.message}`);
}

console.log("viem: estimates, fees, proofs, access lists");
assert.ok(await first.estimateContractGas({ ...contract, functionName: "increment", account }) > 21_000n);
assert.ok((await last.estimateFeesPerGas()).maxFeePerGas > 0n);
const history = await last.getFeeHistory({ blockCount: 3, rewardPercentiles: [10, 90] });
assert.equal(history.baseFeePerGas.length, history.gasUsedRatio.length + 1);
const slot = `0x${"0".repeat(64)}`;
const proofs = await Promise.all(nodes.map((n) => n.getProof({
  address: contract.address, storageKeys: [slot], blockNumber: written.blockNumber,
})));
for (const proof of proofs) assert.deepEqual(proof, proofs[0]);
assert.equal(proofs[0].storageProof[0].value, 77n);
const listed = await last.createAccessList({
  account, to: contract.address, data: "0xd09de08a", // increment()
});
assert.deepEqual(listed.accessList, [{ address: contract.address.toLowerCase(), storageKeys: [slot] }]);

console.log("viem: an account delegates to a contract (EIP-7702)");
const authorization = await firstWallet.signAuthorization({ account: stranger, contractAddress: contract.address });
await mined(await lastWallet.writeContract({
  address: stranger.address, abi: counter.abi, functionName: "increment", authorizationList: [authorization],
}));
for (const node of nodes) {
  assert.equal(await node.readContract({ ...contract, address: stranger.address, functionName: "number" }), 1n);
}

console.log("viem: watching over WebSocket on one node while another is written to");
const socket = createPublicClient({ ...options, transport: webSocket(urls[0].replace(/^http/, "ws"), { retryCount: 0 }) });
const seen = { heads: [], values: [] };
let arrived;
const complete = new Promise((resolve) => { arrived = resolve; });
const check = () => {
  if (seen.values.length >= 3 && seen.heads.length >= 1) arrived();
};
const fail = (e) => { console.error(e); process.exit(1); };
const unwatchHeads = socket.watchBlocks({ onBlock: (b) => { seen.heads.push(b.number); check(); }, onError: fail });
const unwatchLogs = socket.watchContractEvent({
  ...contract, eventName: "NumberSet", onError: fail,
  onLogs: (logs) => { seen.values.push(...logs.map((log) => log.args.value)); check(); },
});
await socket.getBlockNumber(); // answered on the same connection, so the subscriptions stand
for (const value of [11n, 12n, 13n]) {
  await mined(await lastWallet.writeContract({ ...contract, functionName: "setNumber", args: [value] }));
}
const timer = setTimeout(() => fail(new Error(`subscriptions: ${JSON.stringify(seen, (_, v) => `${v}`)}`)), 20_000);
await complete;
clearTimeout(timer);
assert.deepEqual(seen.values, [11n, 12n, 13n]);
for (let i = 1; i < seen.heads.length; i++) assert.equal(seen.heads[i], seen.heads[i - 1] + 1n);
unwatchHeads();
unwatchLogs();

console.log("viem: passed");
process.exit(0);
