"""web3.py's published provider suite, pointed at a node: one subclass for each of its classes."""

import os

import pytest_asyncio
from web3 import AsyncWeb3, WebSocketProvider
from web3._utils.module_testing import (
    AsyncEthModuleTest,
    AsyncNetModuleTest,
    EthModuleTest,
    GoEthereumAsyncTxPoolModuleTest,
    GoEthereumTxPoolModuleTest,
    NetModuleTest,
    Web3ModuleTest,
)
from web3._utils.module_testing.persistent_connection_provider import PersistentConnectionProviderTest
from web3._utils.module_testing.web3_module import AsyncWeb3ModuleTest

from conftest import signing


def check_version(client_version):
    assert "/" in client_version


class TestEth(EthModuleTest):
    pass


class TestAsyncEth(AsyncEthModuleTest):
    pass


class TestNet(NetModuleTest):
    pass


class TestAsyncNet(AsyncNetModuleTest):
    pass


class TestWeb3(Web3ModuleTest):
    def _check_web3_client_version(self, client_version):
        check_version(client_version)


class TestAsyncWeb3(AsyncWeb3ModuleTest):
    def _check_web3_client_version(self, client_version):
        check_version(client_version)


class TestTxPool(GoEthereumTxPoolModuleTest):
    pass


class TestAsyncTxPool(GoEthereumAsyncTxPoolModuleTest):
    pass


class TestWebSocket(PersistentConnectionProviderTest):
    @pytest_asyncio.fixture
    async def async_w3(self, chain):
        url = os.environ["SUITE_URL"].replace("http", "ws", 1)
        async with AsyncWeb3(WebSocketProvider(url)) as w3:
            yield signing(w3)
