import com.amazonaws.services.dynamodbv2.local.main.ServerRunner;
import com.amazonaws.services.dynamodbv2.local.server.DynamoDBProxyServer;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import org.eclipse.jetty.server.Connector;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;

/** DynamoDB Local on the loopback interface alone, which its own launcher has no option for. Arguments: as its own. */
public class LoopbackDynamodb {
    public static void main(String[] arguments) throws Exception {
        List<String> all = new ArrayList<>(List.of("-sharedDb", "-disableTelemetry"));
        Collections.addAll(all, arguments);
        DynamoDBProxyServer proxy = ServerRunner.createServerFromCommandLineArgs(all.toArray(new String[0]));
        var field = DynamoDBProxyServer.class.getDeclaredField("server");
        field.setAccessible(true);
        for (Connector connector : ((Server) field.get(proxy)).getConnectors()) {
            ((ServerConnector) connector).setHost("127.0.0.1");
        }
        proxy.start();
        System.out.println("ready");
        proxy.join();
    }
}
