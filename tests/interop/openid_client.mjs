// openid-client as its documentation uses it. Prints what came of each step; fails where it does not accept an answer.
import * as client from 'openid-client'

const { ISSUER, CLIENT_ID, CLIENT_SECRET, METHOD, REFRESH_TOKEN } = process.env
const methods = { client_secret_basic: client.ClientSecretBasic, client_secret_post: client.ClientSecretPost }
const loopback = { algorithm: 'oauth2', execute: [client.allowInsecureRequests] }

const discovered = (id, authentication) => client.discovery(new URL(ISSUER), id, undefined, authentication, loopback)
// Both read a challenge (WWW-Authenticate) in place of the body that says the same.
const code = (promise) =>
  promise.then(() => 'accepted', (error) => error.error ?? `${error.status} ${error.cause?.[0]?.scheme}`)

const config = await discovered(CLIENT_ID, methods[METHOD](CLIENT_SECRET))
const tokens = await client.clientCredentialsGrant(config, { scope: 'orders:read', resource: 'stock' })
const found = { scope: tokens.scope }
found.live = await client.tokenIntrospection(config, tokens.access_token)
await client.tokenRevocation(config, tokens.access_token)
found.revoked = await client.tokenIntrospection(config, tokens.access_token)
found.wrong_scope = await code(client.clientCredentialsGrant(config, { scope: 'orders:delete' }))
const impostor = await discovered(CLIENT_ID, methods[METHOD]('wrong'))
found.wrong_secret = await code(client.clientCredentialsGrant(impostor))

if (REFRESH_TOKEN) {
  const web = await discovered('web', client.None())
  const refreshed = await client.refreshTokenGrant(web, REFRESH_TOKEN)
  found.refreshed_scope = refreshed.scope
  await client.tokenRevocation(web, refreshed.refresh_token)
  found.refreshed_after_revocation = await code(client.refreshTokenGrant(web, refreshed.refresh_token))
}
console.log(JSON.stringify(found))
