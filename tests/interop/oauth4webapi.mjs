// oauth4webapi as its documentation uses it. Prints what came of each step; fails where it does not accept an answer.
import * as oauth from 'oauth4webapi'

const { ISSUER, CLIENT_ID, CLIENT_SECRET, METHOD, REFRESH_TOKEN } = process.env
const methods = { client_secret_basic: oauth.ClientSecretBasic, client_secret_post: oauth.ClientSecretPost }
const loopback = { [oauth.allowInsecureRequests]: true }
const issuer = new URL(ISSUER)

const as = await oauth.processDiscoveryResponse(
  issuer,
  await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...loopback }),
)
const me = { client_id: CLIENT_ID }
// Both read a challenge (WWW-Authenticate) in place of the body that says the same.
const code = (promise) =>
  promise.then(() => 'accepted', (error) => error.error ?? `${error.status} ${error.cause?.[0]?.scheme}`)

async function serviceToken(secret, parameters) {
  const answer = await oauth.clientCredentialsGrantRequest(as, me, methods[METHOD](secret), parameters, loopback)
  return oauth.processClientCredentialsResponse(as, me, answer)
}
async function introspected(token) {
  const answer = await oauth.introspectionRequest(as, me, methods[METHOD](CLIENT_SECRET), token, loopback)
  return oauth.processIntrospectionResponse(as, me, answer)
}
async function refreshed(web, refreshToken) {
  const answer = await oauth.refreshTokenGrantRequest(as, web, oauth.None(), refreshToken, loopback)
  return oauth.processRefreshTokenResponse(as, web, answer)
}

const tokens = await serviceToken(CLIENT_SECRET, { scope: 'orders:read', audience: 'stock' })
const found = { scope: tokens.scope, live: await introspected(tokens.access_token) }

// RFC 9068, as a resource server checks it.
const request = new Request('https://stock.example/', { headers: { authorization: `Bearer ${tokens.access_token}` } })
const claims = await oauth.validateJwtAccessToken(as, request, 'stock', loopback)
if (claims.sub !== CLIENT_ID) throw new Error('another subject')

await oauth.processRevocationResponse(
  await oauth.revocationRequest(as, me, methods[METHOD](CLIENT_SECRET), tokens.access_token, loopback),
)
found.revoked = await introspected(tokens.access_token)
found.wrong_scope = await code(serviceToken(CLIENT_SECRET, { scope: 'orders:delete' }))
found.wrong_secret = await code(serviceToken('wrong', {}))

if (REFRESH_TOKEN) {
  const web = { client_id: 'web' }
  const next = await refreshed(web, REFRESH_TOKEN)
  found.refreshed_scope = next.scope
  await oauth.processRevocationResponse(await oauth.revocationRequest(as, web, oauth.None(), next.refresh_token, loopback))
  found.refreshed_after_revocation = await code(refreshed(web, next.refresh_token))
}
console.log(JSON.stringify(found))
