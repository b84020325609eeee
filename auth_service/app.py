"""The composition root: the endpoints of both ports are made and joined here, on the parts below them."""

from functools import partial

from starlette.applications import Starlette
from starlette.middleware import Middleware

from auth_service.accounts.client_grant import ClientCredentialsGrant
from auth_service.accounts.introspection import Introspection
from auth_service.accounts.sign_in import SignIn
from auth_service.accounts.token_revocation import TokenRevocation
from auth_service.application import Application
from auth_service.edge.connection_limit import usable_connections
from auth_service.edge.origins import Origins
from auth_service.edge.problems import EXCEPTION_HANDLERS
from auth_service.edge.request_context import RequestContext
from auth_service.edge.unexpected_errors import UnexpectedErrors
from auth_service.endpoints.bearer import BearerAuthentication
from auth_service.endpoints.client_authentication import ClientAuthentication
from auth_service.endpoints.feed_access import FeedAccess
from auth_service.endpoints.internal.administrator import AdminAuthentication
from auth_service.endpoints.internal.audit_events import AuditEndpoints
from auth_service.endpoints.internal.clients import ClientAdministration
from auth_service.endpoints.internal.health import HealthEndpoints
from auth_service.endpoints.internal.keys import KeyAdministration
from auth_service.endpoints.internal.metrics import MetricsEndpoints
from auth_service.endpoints.internal.sessions import SessionAdministration
from auth_service.endpoints.internal.users import UserAdministration
from auth_service.endpoints.operation import Operation, routes
from auth_service.endpoints.presented import PresentedSessions
from auth_service.endpoints.public.account import AccountEndpoints
from auth_service.endpoints.public.discovery import DiscoveryEndpoints
from auth_service.endpoints.public.documentation import DocumentationEndpoints
from auth_service.endpoints.public.oauth import OAuthEndpoints
from auth_service.endpoints.public.revocations import RevocationEndpoints
from auth_service.endpoints.public.sessions import SessionEndpoints
from auth_service.endpoints.public.sign_in import SignInEndpoints
from auth_service.jobs import Jobs
from auth_service.keys.follower import KeyFollower
from auth_service.openapi import openapi_document
from auth_service.parts import Parts
from auth_service.pruning import pruning_jobs
from auth_service.readiness import Readiness
from auth_service.revocation.feed import RevocationFeed
from auth_service.revocation.follower import Follower
from auth_service.revocation.stream import BLOCK, StreamReader
from auth_service.sessions.refresh import RefreshProtocol
from auth_service.settings import Settings
from auth_service.stores.clock import Clock
from auth_service.stores.database import Database
from auth_service.stores.redis import open_blocking_redis, require_answers


def create_app(settings: Settings, clock: Clock | None = None) -> Application:
    """The service, not yet open: its lifespan opens it."""
    parts = Parts(settings, clock or Clock())
    readiness = Readiness()
    bearer = BearerAuthentication(
        issuer=settings.issuer, client_id=settings.first_party_client_id, keys=parts.keys, sessions=parts.sessions
    )
    origins = Origins(settings.issuer, settings.allowed_origins)
    # A connection for each of the two that follow: requests that have used up all others must not hold them up.
    following = Database(settings.database_url.get_secret_value(), parts.database.clock, pool_size=2)
    follower = Follower(
        database=following,
        stream=StreamReader(open_blocking_redis(settings.redis_url.get_secret_value(), block=BLOCK)),
        live_set=parts.live_set,
    )
    feed = RevocationFeed(parts.live_set, follower.freshness, issuer=settings.issuer)
    operations, assets = _public_operations(parts, feed, origins, bearer)
    public = _starlette(settings, [*operations, *assets], middleware=[origins.cors()], quiet=False)
    key_follower = KeyFollower(parts.key_store, parts.keys, database=following)
    internal_operations = _internal_operations(parts, readiness, key_follower)
    internal = _starlette(settings, internal_operations, middleware=[], quiet=True)
    jobs = Jobs(parts.database, [parts.key_life_cycle.job, *pruning_jobs(settings)])
    application = Application(parts, follower, key_follower, feed, jobs, public, internal, readiness)
    public.router.lifespan_context = lambda _app: application.lifespan()
    return application


def _internal_operations(parts: Parts, readiness: Readiness, key_follower: KeyFollower) -> list[Operation]:
    settings = parts.settings
    admin = AdminAuthentication(issuer=settings.issuer, live_tokens=parts.live_tokens)
    operations = [
        *HealthEndpoints(
            readiness=readiness,
            stores={"postgresql": parts.database.require_writes, "redis": partial(require_answers, parts.redis)},
            keys_problem=lambda: key_follower.problem,
        ).operations(),
        *MetricsEndpoints().operations(),
        *UserAdministration(
            users=parts.users,
            passwords=parts.passwords,
            password_rules=parts.password_rules,
            admin=admin,
        ).operations(),
        *SessionAdministration(
            users=parts.users, sessions=parts.sessions, ending=parts.ending, admin=admin
        ).operations(),
        *ClientAdministration(clients=parts.clients, admin=admin).operations(),
        *KeyAdministration(life_cycle=parts.key_life_cycle, revocation=parts.key_revocation, admin=admin).operations(),
        *AuditEndpoints(database=parts.database, admin=admin).operations(),
        *DocumentationEndpoints(document=lambda: openapi_document(operations, server="/")).document(),
    ]
    return operations


def _public_operations(
    parts: Parts, feed: RevocationFeed, origins: Origins, bearer: BearerAuthentication
) -> tuple[list[Operation], list[Operation]]:
    settings = parts.settings
    presented = PresentedSessions(issuer=settings.issuer, keys=parts.keys)
    sign_in = SignIn(
        database=parts.database,
        users=parts.users,
        passwords=parts.passwords,
        password_rules=parts.password_rules,
        sessions=parts.sessions,
        ending=parts.ending,
        throttle=parts.throttle,
        name_questions=parts.name_questions,
        tokens=parts.tokens,
    )
    refresh = RefreshProtocol(
        issuer=settings.issuer,
        database=parts.database,
        keys=parts.keys,
        sessions=parts.sessions,
        rotations=parts.rotations,
        checkpoints=parts.checkpoints,
        ending=parts.ending,
        tokens=parts.tokens,
    )
    feed_access = None
    if settings.revocation_feed == "client":
        feed_access = FeedAccess(
            issuer=settings.issuer,
            live_tokens=parts.live_tokens,
            keys=parts.keys,
            live_set=parts.live_set,
            clock=parts.database.clock,
        )
    documentation = DocumentationEndpoints(document=lambda: openapi_document(operations, server=settings.issuer))
    operations = [
        *SignInEndpoints(sign_in=sign_in, presented=presented, origins=origins).operations(),
        *SessionEndpoints(
            refresh=refresh,
            sessions=parts.sessions,
            ending=parts.ending,
            users=parts.users,
            bearer=bearer,
            presented=presented,
            origins=origins,
        ).operations(),
        *AccountEndpoints(users=parts.users, bearer=bearer, password_rules=parts.password_rules).operations(),
        *DiscoveryEndpoints(issuer=settings.issuer, keys=parts.keys).operations(),
        *_oauth(parts, refresh).operations(),
        *RevocationEndpoints(
            feed=feed, access=feed_access, max_connections=usable_connections(settings.max_connections)
        ).operations(),
        *documentation.operations(),
    ]
    return operations, list(documentation.assets())


def _oauth(parts: Parts, refresh: RefreshProtocol) -> OAuthEndpoints:
    settings = parts.settings
    return OAuthEndpoints(
        authentication=ClientAuthentication(clients=parts.clients, public_client_id=settings.first_party_client_id),
        grant=ClientCredentialsGrant(settings, parts.keys),
        refresh=refresh,
        revocation=TokenRevocation(
            issuer=settings.issuer,
            database=parts.database,
            keys=parts.keys,
            ending=parts.ending,
            announcer=parts.announcer,
        ),
        introspection=Introspection(
            settings,
            keys=parts.keys,
            sessions=parts.sessions,
            rotations=parts.rotations,
            live_tokens=parts.live_tokens,
        ),
    )


def _starlette(
    settings: Settings, operations: list[Operation], *, middleware: list[Middleware], quiet: bool
) -> Starlette:
    context = Middleware(
        RequestContext,
        trusted_proxies=settings.trusted_proxies,
        secure=settings.issuer.startswith("https://"),
        quiet=quiet,
    )
    app = Starlette(
        routes=routes(operations),
        middleware=[context, *middleware, Middleware(UnexpectedErrors)],
        exception_handlers=dict(EXCEPTION_HANDLERS),
    )
    app.router.redirect_slashes = False
    return app
